import type { Messages } from '../en'

export const approval: Messages['approval'] = { approve: '批准', reject: '拒绝' }
