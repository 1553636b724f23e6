import { approval } from './approval'
import { auth } from './auth'
import { chat } from './chat'
import { common } from './common'
import { inbox } from './inbox'
import { nav } from './nav'
import { problems } from './problems'
import { risks } from './risks'
import { sessions } from './sessions'
import { settings } from './settings'

export const en = { approval, auth, chat, common, nav, problems, inbox, risks, sessions, settings }
export type Messages = typeof en
