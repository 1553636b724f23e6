import type { Messages } from '../en'

export const inbox: Messages['inbox'] = { title: '审批' }
