import DOMPurify from 'dompurify'
import { languageOf } from './markdown'

/** Longer code stays as it is: colouring it would be felt. In characters. */
const LONGEST = 30_000

/** Colours the code blocks in `root` whose language is known. The languages are loaded when the first one comes. */
export async function highlight(root: HTMLElement): Promise<void> {
  const wanted = [...root.querySelectorAll('pre')].filter((block) => languageOf(block) !== undefined)
  if (wanted.length === 0) return
  const { hljs } = await import('./languages')
  for (const block of wanted) {
    const code = block.querySelector('code')
    const language = languageOf(block)
    if (!code || language === undefined || !hljs.getLanguage(language) || code.textContent.length > LONGEST)
      continue
    const { value } = hljs.highlight(code.textContent, { language, ignoreIllegals: true })
    code.replaceChildren(DOMPurify.sanitize(value, { RETURN_DOM_FRAGMENT: true, ALLOWED_TAGS: ['span'] }))
  }
}
