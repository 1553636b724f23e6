import { approval } from './approval'
import { auth } from './auth'
import { common } from './common'
import { inbox } from './inbox'
import { nav } from './nav'
import { problems } from './problems'
import { risks } from './risks'

export const en = { approval, auth, common, nav, problems, inbox, risks }
export type Messages = typeof en
