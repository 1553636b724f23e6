// @vitest-environment jsdom
import { expect, it } from 'vitest'
import { framedPage } from './framedPage'

it('shows text, tables and pictures that the page brings', () => {
  const page = framedPage(
    '<h1>Sum</h1><table width="9"><tr><td>5050</td></tr></table><img src="data:image/png;base64,AA==">',
  )
  expect(page).toContain('<h1>Sum</h1>')
  expect(page).toContain('<td>5050</td>')
  expect(page).toContain('data:image/png;base64,AA==')
})

it.each([
  '<link rel="preconnect" href="https://far.example">',
  '<link rel="dns-prefetch" href="//far.example">',
  '<meta http-equiv="refresh" content="0;url=https://far.example">',
  '<base href="https://far.example/">',
  '<script src="https://far.example/x.js"></script>',
  '<img src="https://far.example/x.png" srcset="https://far.example/y.png 2x">',
  '<img src=" //far.example/x.png">',
  '<body background="https://far.example/x.png">',
  '<video poster="https://far.example/x.png" src="https://far.example/v"></video>',
  '<a href="https://far.example" ping="https://far.example">x</a>',
  '<form action="https://far.example"><button formaction="https://far.example">x</button></form>',
  '<iframe src="https://far.example"></iframe>',
  '<object data="https://far.example"></object>',
  '<svg><image href="https://far.example/x" xlink:href="https://far.example/x"/><use href="https://far.example/#a"/></svg>',
  '<style>@import "https://far.example/x.css"</style>',
  '<p style="background:url(https://far.example/x)">x</p>',
])('names no address of %s', (html) =>
  expect(framedPage(`<p>before</p>${html}`)).not.toContain('far.example'),
)
