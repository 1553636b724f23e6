/** What the server's problem codes mean, for people; what is not here is shown as the server said it. */
export const problems = {
  offline: 'The server cannot be reached.',
  wrong_credentials: 'Wrong user name or password.',
  too_many_failures: 'Too many failed attempts. Wait a little and try again.',
  username_taken: 'This user name is taken.',
  registration_closed: 'Registration is closed. Ask the administrator for an account.',
  setup_refused: 'This link is not valid any more. Start the server anew for another one, or log in.',
  thread_not_found: 'There is no such session.',
  thread_access_denied: 'This session is not yours.',
  session_closed: 'This session is closed: it takes no more messages.',
  session_expired: 'This session has expired: it takes no more messages.',
  session_quota: 'You have as many active sessions as you may. Close or delete one.',
  queue_full: 'Too many messages wait already. Send it again when some have been read.',
  approval_pending: 'A step waits for your approval: decide it first, or let your message reject it.',
  thread_busy: 'Something runs in this session. Wait for it, or stop it.',
}
