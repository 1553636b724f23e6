import 'vuetify/styles/core'
import './styles.css'
import './utilities.css'
import { createVuetify } from 'vuetify'
import { aliases, mdi } from 'vuetify/iconsets/mdi-svg'
import { en as vuetifyEn, zhHans } from 'vuetify/locale'

const light = {
  dark: false,
  colors: {
    background: '#f6f8f9',
    surface: '#ffffff',
    'surface-variant': '#e3e9ec',
    'on-surface-variant': '#3b4a52',
    primary: '#0b5c7a',
    'on-primary': '#ffffff',
    secondary: '#46606c',
    success: '#1b6e3c',
    warning: '#8a5300',
    error: '#b3261e',
    info: '#0b5c7a',
  },
}

const dark = {
  dark: true,
  colors: {
    background: '#0f1518',
    surface: '#172024',
    'surface-variant': '#27343a',
    'on-surface-variant': '#c3d0d6',
    primary: '#7cc7e2',
    'on-primary': '#00303f',
    secondary: '#b0c8d3',
    success: '#7ed7a0',
    warning: '#f2b867',
    error: '#ffb4ab',
    info: '#7cc7e2',
  },
}

/** The server's nonce for style sheets that are made in the page; see vite.config.ts. */
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce

export const vuetify = createVuetify({
  icons: { defaultSet: 'mdi', aliases, sets: { mdi } },
  theme: { defaultTheme: 'system', themes: { light, dark }, ...(nonce ? { cspNonce: nonce } : {}) },
  locale: { locale: 'en', messages: { en: vuetifyEn, zh: zhHans } },
  defaults: {
    VBtn: { variant: 'flat', style: 'text-transform: none; letter-spacing: 0' },
    VTextField: { variant: 'outlined', density: 'comfortable' },
    VTextarea: { variant: 'outlined', density: 'comfortable' },
    VSelect: { variant: 'outlined', density: 'comfortable' },
    VCard: { rounded: 'lg' },
  },
})
