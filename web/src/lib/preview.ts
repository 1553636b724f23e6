import type { FilePreview } from './fileRoot'

/** How a file is shown. `text` covers all that is text and nothing else. */
export type Look = 'text' | 'markdown' | 'csv' | 'image' | 'pdf' | 'html' | 'none'

/** Of what is larger, only the beginning is shown, and images and PDFs are offered for download. */
export const LARGEST_LOOK = 25 * 1024 * 1024

const IMAGES = new Set([
  'image/png',
  'image/jpeg',
  'image/gif',
  'image/webp',
  'image/avif',
  'image/bmp',
  'image/svg+xml',
])

export function lookOf(file: Pick<FilePreview, 'name' | 'mime' | 'text' | 'size'>): Look {
  const small = file.size <= LARGEST_LOOK
  if (IMAGES.has(file.mime) && small) return 'image'
  if (file.mime === 'application/pdf' && small) return 'pdf'
  if (file.text === null) return 'none'
  if (/\.(md|markdown)$/i.test(file.name)) return 'markdown'
  if (/\.(csv|tsv)$/i.test(file.name)) return 'csv'
  if (/\.html?$/i.test(file.name)) return 'html'
  return 'text'
}

/** Rows and cells of comma-separated values (RFC 4180), `rows` of them at most; tabs when the first line has any. */
export function parseCsv(text: string, rows: number): string[][] {
  const first = text.slice(0, text.search(/\r?\n|$/))
  const separator = first.includes('\t') && !first.includes(',') ? '\t' : ','
  const table: string[][] = []
  let row: string[] = []
  let cell = ''
  let quoted = false
  for (let place = 0; place < text.length && table.length < rows; place++) {
    const char = text[place]
    if (quoted) {
      if (char !== '"') cell += char
      else if (text[place + 1] === '"') cell += text[place++]
      else quoted = false
    } else if (char === '"' && cell === '') {
      quoted = true
    } else if (char === separator) {
      row.push(cell)
      cell = ''
    } else if (char === '\n') {
      table.push([...row, cell.replace(/\r$/, '')])
      row = []
      cell = ''
    } else {
      cell += char
    }
  }
  if ((cell !== '' || row.length > 0) && table.length < rows) table.push([...row, cell])
  return table
}
