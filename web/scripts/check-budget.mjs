// Whether what a browser loads before the first screen is within web/budget.json: npm run budget [-- <built folder>]
//
// That is the entry of the page and all that it imports statically, in bytes as gzip makes them, level 9. Screens and
// other parts that are imported when they are needed do not count. Exit codes: 0 within, 1 over, or nothing built.

import { existsSync, readFileSync } from 'node:fs'
import { dirname, extname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

const here = dirname(fileURLToPath(import.meta.url))
const built = resolve(process.argv[2] ?? join(here, '../../api/moorage_api/web'))
const manifestFile = join(built, '.vite/manifest.json')

/** The files of these parts of Vite's manifest and of those that they import statically, each once. */
function filesOf(manifest, keys, seen = new Set()) {
  return keys
    .filter((key) => !seen.has(key) && seen.add(key))
    .flatMap((key) => {
      const { file, css = [], imports = [] } = manifest[key]
      return [file, ...css, ...filesOf(manifest, imports, seen)]
    })
}

function check() {
  if (!existsSync(manifestFile)) {
    say('nothing is built: run `make web` first')
    return 1
  }
  const manifest = JSON.parse(readFileSync(manifestFile, 'utf8'))
  const budget = JSON.parse(readFileSync(join(here, '../budget.json'), 'utf8')).entry
  const entries = Object.keys(manifest).filter((key) => manifest[key].isEntry)
  if (entries.length === 0) throw new Error(`${manifestFile} names no entry`)
  const files = [...new Set(filesOf(manifest, entries))]
  let code = 0
  for (const [kind, most] of Object.entries(budget)) {
    const sizes = files
      .filter((file) => extname(file) === `.${kind}`)
      .map((file) => [gzipSync(readFileSync(join(built, file)), { level: 9 }).length, file])
      .sort(([a], [b]) => b - a)
    const total = sizes.reduce((sum, [size]) => sum + size, 0)
    const verdict = total > most ? 'OVER' : 'within'
    say(`entry ${kind} ${kilobytes(total)} gzipped, ${verdict} ${kilobytes(most)}`)
    if (total > most) {
      code = 1
      for (const [size, file] of sizes) say(`  ${kilobytes(size)} ${file}`)
    }
  }
  return code
}

function say(line) {
  process.stdout.write(`budget: ${line}\n`)
}

function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(1)} kB`
}

process.exitCode = check()
