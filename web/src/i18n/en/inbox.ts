export const inbox = { title: 'Approvals' }
