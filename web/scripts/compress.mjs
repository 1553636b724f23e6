// Store each text file of a folder compressed beside itself, for a server that compresses nothing:
// npm run compress -- <folder>

import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const TEXT = new Set(['.css', '.js', '.json', '.svg', '.txt', '.webmanifest'])
const SMALLEST = 1024 // bytes; below that a packet is a packet

const [folder] = process.argv.slice(2)

for (const name of readdirSync(folder, { recursive: true })) {
  const path = join(folder, name)
  if (name.startsWith('.') || !TEXT.has(extname(path)) || statSync(path).size < SMALLEST) continue
  const plain = readFileSync(path)
  const hints = { [constants.BROTLI_PARAM_SIZE_HINT]: plain.length }
  writeFileSync(`${path}.br`, brotliCompressSync(plain, { params: hints })) // its best quality, by default
  writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }))
}
