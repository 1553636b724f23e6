import { expect, it } from 'vitest'
import sheet from './utilities.css?raw'

const VIEWS = import.meta.glob<string>('./**/*.vue', { query: '?raw', import: 'default', eager: true })
const UTILITY =
  /^(?:[mp][abtsexy]-\d+|ga-\d+|d-\w+|flex-\w+(?:-\d)?|(?:align|justify)-\w+|text-(?:h\d|body-\d|caption|error|subtitle-\d))$/

it('has every utility class that a template uses, and no other', () => {
  const used = new Set<string>()
  for (const text of Object.values(VIEWS)) {
    for (const [, names] of text.matchAll(/\bclass="([^"]*)"/g)) {
      for (const name of (names ?? '').split(/\s+/)) if (UTILITY.test(name)) used.add(name)
    }
  }
  const there = new Set([...sheet.matchAll(/^\.([\w-]+)/gm)].map((match) => match[1]))
  expect([...used].sort()).toEqual([...there].sort())
})
