import DOMPurify from 'dompurify'

const REACHING = new Set([
  'action',
  'background',
  'cite',
  'data',
  'formaction',
  'href',
  'ping',
  'poster',
  'src',
  'srcset',
  'xlink:href',
])
const STAYS = /^(?:data:image\/|#)/i

const purifier = DOMPurify(window)
purifier.addHook('uponSanitizeAttribute', (_, attribute) => {
  if (REACHING.has(attribute.attrName) && !STAYS.test(attribute.attrValue.trim())) attribute.keepAttr = false
})

/**
 * Somebody's page for a sandboxed frame without scripts: without what names an address. The frame's policy stops the
 * requests, but browsers connect to a host ahead of them, and that alone tells it who looks.
 */
export function framedPage(html: string): string {
  return purifier.sanitize(html, { WHOLE_DOCUMENT: true, FORBID_TAGS: ['style'], FORBID_ATTR: ['style'] })
}
