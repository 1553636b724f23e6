import type { Messages } from '../en'
import { auth } from './auth'
import { common } from './common'
import { nav } from './nav'
import { problems } from './problems'

export const zh: Messages = { auth, common, nav, problems }
