// @vitest-environment jsdom
import { describe, expect, it } from 'vitest'
import { blockElement, renderBlocks } from './markdown'

const words = { copy: 'Copy', image: (alt: string, host: string) => `${alt} (${host})` }

function show(text: string): HTMLElement {
  const root = document.createElement('div')
  root.append(...renderBlocks(text).map((html) => blockElement(html, words)))
  return root
}

describe('renderBlocks', () => {
  it('gives one piece of HTML per top-level block', () => {
    expect(renderBlocks('# a\n\nb\n\n- c\n- d\n\n---\n\n```\ne\n```')).toHaveLength(5)
  })

  it('leaves earlier blocks as they were while a text grows', () => {
    const text = '# Title\n\nSome *words*.\n\n```python\nprint(1)\n```\n\n- one\n- two\n\nEnd'
    let before: string[] = []
    for (let length = 1; length <= text.length; length++) {
      const now = renderBlocks(text.slice(0, length))
      // A block may change until two more have begun after it.
      before.slice(0, -2).forEach((html, place) => expect(now[place]).toBe(html))
      before = now
    }
  })
})

describe('blockElement', () => {
  it('shows HTML as text', () => {
    const shown = show('<img src=x onerror=alert(1)> <script>alert(1)</script>')
    expect(shown.querySelector('img, script')).toBeNull()
    expect(shown.textContent).toContain('<script>')
  })

  it.each(['[x](javascript:alert(1))', '[x](data:text/html,hi)', '[x](hello.py)', '[x](/app/settings)'])(
    'makes no link of %s',
    (text) => expect(show(text).querySelector('a[href]')).toBeNull(),
  )

  it('opens links in a tab that knows nothing of this one', () => {
    const link = show('https://example.org/a').querySelector('a')
    expect(link?.rel).toBe('noopener noreferrer nofollow')
    expect(link?.target).toBe('_blank')
  })

  it('fetches no image from elsewhere, and offers a link in its place', () => {
    const shown = show('![chart](https://example.org/a.png)')
    expect(shown.querySelector('img')).toBeNull()
    expect(shown.querySelector('a')?.textContent).toBe('chart (example.org)')
    expect(show('![x](data:image/png;base64,AAAA)').querySelector('img')).not.toBeNull()
  })

  it('makes no image element for one elsewhere even for a moment, as that alone would fetch it', () => {
    expect(renderBlocks('![chart](https://example.org/a.png)')[0]).not.toContain('<img')
  })

  it('keeps how the cells of a table are aligned, and needs no style for it', () => {
    const shown = show('| a | b |\n|---|--:|\n| 1 | 2 |')
    const cells = [...shown.querySelectorAll('th, td')]
    expect(cells.map((cell) => cell.getAttribute('align'))).toEqual([null, 'right', null, 'right'])
    expect(renderBlocks('| b |\n|--:|\n| 2 |').join('')).not.toContain('style')
  })

  it('gives code a button that copies it', () => {
    const shown = show('```python\nprint(1)\n```')
    expect(shown.querySelector('.code-head')?.textContent).toBe('pythonCopy')
  })
})
