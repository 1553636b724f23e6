import { createRouter, createWebHistory } from 'vue-router'
import { onLoggedOut } from '@/api/access'
import { comeBack, me, thrownOut } from '@/stores/me'

declare module 'vue-router' {
  interface RouteMeta {
    /** Without a log-in. */
    open?: boolean
    admin?: boolean
  }
}

export const router = createRouter({
  history: createWebHistory('/app/'),
  routes: [
    { path: '/login', name: 'login', component: () => import('@/views/LoginView.vue'), meta: { open: true } },
    { path: '/setup', name: 'setup', component: () => import('@/views/SetupView.vue'), meta: { open: true } },
    {
      path: '/',
      component: () => import('@/components/AppShell.vue'),
      children: [
        { path: '', name: 'home', component: () => import('@/views/HomeView.vue') },
        {
          path: 'sessions/:threadId',
          name: 'session',
          component: () => import('@/views/SessionView.vue'),
          props: true,
        },
        { path: 'approvals', name: 'inbox', component: () => import('@/views/InboxView.vue') },
        { path: 'shared', name: 'shared', component: () => import('@/views/SharedFilesView.vue') },
        { path: 'settings', name: 'settings', component: () => import('@/views/SettingsView.vue') },
        {
          path: 'admin',
          name: 'admin',
          component: () => import('@/views/AdminView.vue'),
          meta: { admin: true },
        },
      ],
    },
    {
      path: '/:rest(.*)*',
      name: 'nowhere',
      component: () => import('@/views/NowhereView.vue'),
      meta: { open: true },
    },
  ],
})

router.beforeEach(async (to) => {
  if (to.meta.open) return true
  if (!(await comeBack())) return { name: 'login', query: to.fullPath === '/' ? {} : { to: to.fullPath } }
  if (to.meta.admin && !me.value?.is_admin)
    return { name: 'nowhere', params: { rest: to.path.slice(1).split('/') } }
  return true
})

onLoggedOut(() => {
  thrownOut()
  const { fullPath, meta } = router.currentRoute.value
  if (!meta.open) void router.push({ name: 'login', query: { to: fullPath, ended: '1' } })
})
