export const approval = { approve: 'Approve', reject: 'Reject' }
