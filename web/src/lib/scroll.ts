import { onScopeDispose, ref, watch, type Ref } from 'vue'

/** How near to the end counts as being there, in pixels. */
const NEAR = 24

/**
 * Keeps a scrolled list at its end while its reader is there, and leaves it alone while they are not. `content` is the
 * element inside `scroller` that grows.
 */
export function useFollowEnd(
  scroller: Ref<HTMLElement | null>,
  content: Ref<HTMLElement | null>,
): { atEnd: Ref<boolean>; toEnd: () => void; keepPlace: (change: () => Promise<void>) => Promise<void> } {
  const atEnd = ref(true)
  let top = 0

  function toEnd(): void {
    const element = scroller.value
    if (!element) return
    atEnd.value = true
    element.scrollTop = element.scrollHeight
  }

  function scrolled(): void {
    const element = scroller.value
    if (!element) return
    const rest = element.scrollHeight - element.scrollTop - element.clientHeight
    if (rest <= NEAR) atEnd.value = true
    else if (element.scrollTop < top) atEnd.value = false // growth alone does not leave the end: going up does
    top = element.scrollTop
  }

  /** Runs a change above what is read, which stays where it is. */
  async function keepPlace(change: () => Promise<void>): Promise<void> {
    const element = scroller.value
    const before = element ? element.scrollHeight - element.scrollTop : 0
    await change()
    if (element) element.scrollTop = element.scrollHeight - before
  }

  const grown = new ResizeObserver(() => {
    if (atEnd.value) toEnd()
  })
  watch([scroller, content], ([outer, inner], [former]) => {
    former?.removeEventListener('scroll', scrolled)
    outer?.addEventListener('scroll', scrolled, { passive: true })
    grown.disconnect()
    if (inner) grown.observe(inner)
    if (outer) grown.observe(outer) // a phone's keyboard makes it smaller
  })
  onScopeDispose(() => {
    grown.disconnect()
    scroller.value?.removeEventListener('scroll', scrolled)
  })
  return { atEnd, toEnd, keepPlace }
}
