const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g

/** What a terminal would have left to read: no colours, no other control sequences, and overwritten lines gone. */
export function plainOutput(text: string): string {
  return text
    .replace(ESCAPES, '')
    .replace(/\r+\n/g, '\n')
    .split('\n')
    .map(lastOverwrite)
    .join('\n')
    .replace(CONTROLS, '')
}

/** A progress bar writes over its own line again and again. */
function lastOverwrite(line: string): string {
  if (!line.includes('\r')) return line
  return line.split('\r').reduce((shown, part) => (part === '' ? shown : part + shown.slice(part.length)))
}
