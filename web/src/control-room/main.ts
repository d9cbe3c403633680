import { createApp } from 'vue'
import App from './App.vue'
import { i18n } from '../i18n'
import { armOnFirstGesture } from '../shared/sound'
import '../shared/base.css'

armOnFirstGesture()
createApp(App).use(i18n).mount('#app')
