import DOMPurify from 'dompurify'
import MarkdownIt from 'markdown-it'

const md = new MarkdownIt({ html: false, linkify: true })
const imageElement = md.renderer.rules.image

md.renderer.rules.image = (tokens, place, options, env, renderer) => {
  const token = tokens[place]
  const source = String(token?.attrGet('src') ?? '')
  if (source.startsWith('data:image/') && imageElement)
    return imageElement(tokens, place, options, env, renderer)
  const { escapeHtml } = md.utils
  return `<a class="remote-image" href="${escapeHtml(source)}">${escapeHtml(token?.content ?? '')}</a>`
}

for (const cell of ['th_open', 'td_open']) md.renderer.rules[cell] = alignCell

/** As an attribute: what is said in `style`, the page's policy keeps without effect. */
function alignCell(
  ...[tokens, place, options, , renderer]: Parameters<NonNullable<typeof imageElement>>
): string {
  const token = tokens[place]
  const side = /^text-align:(\w+)$/.exec(String(token?.attrGet('style') ?? ''))?.[1]
  if (token && side) token.attrs = [['align', side]]
  return renderer.renderToken(tokens, place, options)
}

/** The words on what is put beside the text. */
export interface MarkdownWords {
  copy: string
  /** For an image elsewhere, which is not fetched: looking at it would tell its server who reads. */
  image: (alt: string, host: string) => string
}

/** The HTML of each top-level block, not yet safe. What comes later rarely changes the blocks before it. */
export function renderBlocks(text: string): string[] {
  const env = {}
  const tokens = md.parse(text, env)
  const blocks: string[] = []
  let first = 0
  let depth = 0
  tokens.forEach((token, place) => {
    depth += token.nesting
    if (depth > 0) return
    blocks.push(md.renderer.render(tokens.slice(first, place + 1), md.options, env))
    first = place + 1
  })
  return blocks
}

/** A block as nodes that are safe to show: no scripts, no styles, nothing that loads from elsewhere. */
export function blockElement(html: string, words: MarkdownWords): HTMLElement {
  const block = document.createElement('div')
  block.append(
    DOMPurify.sanitize(html, {
      RETURN_DOM_FRAGMENT: true,
      USE_PROFILES: { html: true },
      FORBID_TAGS: ['style', 'form', 'input', 'button', 'audio', 'video', 'picture', 'source'],
      FORBID_ATTR: ['style', 'id', 'name', 'srcset'],
    }),
  )
  for (const link of block.querySelectorAll<HTMLAnchorElement>('a.remote-image')) nameRemote(link, words)
  for (const link of block.querySelectorAll('a')) guard(link)
  for (const code of block.querySelectorAll('pre')) frameCode(code, words)
  for (const table of block.querySelectorAll('table')) makeScrollable(table)
  return block
}

/** An image elsewhere came as a link: an image element would be fetched before it could be replaced. */
function nameRemote(link: HTMLAnchorElement, words: MarkdownWords): void {
  const source = link.getAttribute('href') ?? ''
  link.textContent = words.image(link.textContent, webAddress(source)?.host ?? source)
}

/** A link leaves this page in a tab of its own; one that leads into this site, or nowhere, is text. */
function guard(link: HTMLAnchorElement): void {
  const address = link.getAttribute('href') ?? ''
  if (!webAddress(address) && !address.startsWith('mailto:')) {
    link.removeAttribute('href')
    return
  }
  link.target = '_blank'
  link.rel = 'noopener noreferrer nofollow'
}

function webAddress(text: string): URL | undefined {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) return undefined
  return new URL(text)
}

function frameCode(code: HTMLPreElement, words: MarkdownWords): void {
  const frame = document.createElement('div')
  frame.className = 'code-frame'
  const head = document.createElement('div')
  head.className = 'code-head'
  const language = document.createElement('span')
  language.textContent = languageOf(code) ?? ''
  const copy = document.createElement('button')
  copy.type = 'button'
  copy.className = 'code-copy'
  copy.textContent = words.copy
  head.append(language, copy)
  code.tabIndex = 0 // it scrolls sideways
  code.replaceWith(frame)
  frame.append(head, code)
}

export function languageOf(block: Element): string | undefined {
  const name = block.querySelector('code')?.className ?? ''
  return /language-([\w+#-]+)/.exec(name)?.[1]
}

function makeScrollable(table: HTMLTableElement): void {
  const frame = document.createElement('div')
  frame.className = 'table-frame'
  frame.tabIndex = 0
  table.replaceWith(frame)
  frame.append(table)
}
