import type { Messages } from '../en'
import { admin } from './admin'
import { approval } from './approval'
import { auth } from './auth'
import { chat } from './chat'
import { common } from './common'
import { files } from './files'
import { inbox } from './inbox'
import { nav } from './nav'
import { problems } from './problems'
import { risks } from './risks'
import { sessions } from './sessions'
import { settings } from './settings'

export const zh: Messages = {
  admin,
  approval,
  auth,
  chat,
  common,
  files,
  nav,
  problems,
  inbox,
  risks,
  sessions,
  settings,
}
