import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

const EDGE = 'http://127.0.0.1:8080'

export default defineConfig({
  plugins: [vue()],
  define: {
    __VUE_OPTIONS_API__: 'false',
    __VUE_PROD_DEVTOOLS__: 'false',
    __VUE_I18N_FULL_INSTALL__: 'false',
    __VUE_I18N_LEGACY_API__: 'false',
    __INTLIFY_PROD_DEVTOOLS__: 'false',
  },
  build: {
    target: 'es2022',
    // Everything is a file of its own: the servers' Content-Security-Policy allows 'self' alone.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: ['control-room.html', 'headquarters.html'],
      output: {
        codeSplitting: { groups: [{ name: 'vue', test: /node_modules\/(@?vue|vue-i18n|@intlify)/ }] },
      },
    },
  },
  server: { proxy: { '/api': EDGE } },
})
