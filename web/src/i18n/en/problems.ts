/** What the server's problem codes mean, for people; what is not here is shown as the server said it. */
export const problems = {
  offline: 'The server cannot be reached.',
  wrong_credentials: 'Wrong user name or password.',
  too_many_failures: 'Too many failed attempts. Wait a little and try again.',
  username_taken: 'This user name is taken.',
  registration_closed: 'Registration is closed. Ask the administrator for an account.',
  setup_refused: 'This link is not valid any more. Start the server anew for another one, or log in.',
}
