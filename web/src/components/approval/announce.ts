let region: HTMLElement | undefined

/** Say something to those who hear the page. */
export function announce(text: string): void {
  if (!region?.isConnected) {
    region = document.createElement('div')
    region.className = 'visually-hidden'
    region.setAttribute('role', 'status')
    region.setAttribute('aria-live', 'polite')
    document.body.append(region)
  }
  const said = document.createElement('p')
  said.textContent = text
  region.append(said)
  while (region.childElementCount > 5) region.firstElementChild?.remove()
}

/** The focus goes to the next card that waits, or to where the next message is written, or stays with `card`. */
export function focusNext(card: HTMLElement): void {
  const waiting = [...document.querySelectorAll<HTMLElement>('[data-approval="pending"]')]
  const after = waiting.find((one) => card.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING)
  const composer = document.querySelector<HTMLElement>('textarea[enterkeyhint="send"]')
  const next = after ?? waiting.find((one) => one !== card) ?? composer ?? card
  next.focus()
}
