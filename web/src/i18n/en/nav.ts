export const nav = {
  sessions: 'Sessions',
  newSession: 'New session',
  inbox: 'Approvals',
  waiting: (n: number) => (n === 1 ? '1 waits for you' : `${n} wait for you`),
  shared: 'Shared files',
  settings: 'Settings',
  admin: 'Administration',
}
