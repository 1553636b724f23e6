import { onScopeDispose, ref, watchEffect } from 'vue'

/** What the page that is open is called; the shell shows it, and the browser's tab. */
export const pageTitle = ref('')

/** Names the page for as long as the caller is there. */
export function usePageTitle(title: () => string): void {
  watchEffect(() => (pageTitle.value = title()))
  onScopeDispose(() => (pageTitle.value = ''))
}
