import { auth } from './auth'
import { common } from './common'
import { nav } from './nav'
import { problems } from './problems'

export const en = { auth, common, nav, problems }
export type Messages = typeof en
