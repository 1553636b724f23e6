import vue from '@vitejs/plugin-vue'
import vuetify from 'vite-plugin-vuetify'
import { defineConfig } from 'vitest/config'

// The server puts a fresh nonce in this place of the page; Vite's and Vuetify's style sheets carry it.
const NONCE = '__CSP_NONCE__'

export default defineConfig({
  base: '/app/',
  plugins: [vue(), vuetify({ autoImport: true })],
  resolve: { alias: { '@': new URL('./src', import.meta.url).pathname } },
  html: { cspNonce: NONCE },
  build: {
    outDir: '../api/moorage_api/web',
    emptyOutDir: true,
    manifest: true,
    target: 'baseline-widely-available',
    modulePreload: { polyfill: false }, // an inline script, and old browsers are not served
    assetsInlineLimit: 0, // the policy allows no data: scripts
  },
  server: {
    fs: { allow: ['.', '../tests/recordings'] },
    proxy: { '/api': 'http://127.0.0.1:8000', '/info': 'http://127.0.0.1:8000' },
  },
  test: { css: { include: /utilities/ }, include: ['src/**/*.test.ts'] },
})
