import './hiddenText.css'
import { h, type FunctionalComponent } from 'vue'
import { t } from '@/i18n'
import { pieces } from '@/lib/hiddenText'

/** A text in which each character that hides, reorders or imitates others is a visible chip with its code. */
const HiddenText: FunctionalComponent<{ text: string }> = ({ text }) =>
  pieces(text).map((piece) => {
    if (piece.code === undefined) return piece.text
    const name = piece.name ? `${piece.code} ${piece.name}` : piece.code
    return h('span', { class: 'hidden-character', title: name }, [
      h('span', { class: 'visually-hidden' }, t.value.approval.hiddenCharacter(name)),
      h('span', { 'aria-hidden': 'true' }, piece.code),
    ])
  })
HiddenText.props = ['text']

export default HiddenText
