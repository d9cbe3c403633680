// API types from the two contracts: src/generated/edge.ts and cloud.ts. Part of every build and check; not kept in git.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import openapi, { astToString } from 'openapi-typescript'

const CONTRACTS = { edge: '../edge/pages/openapi.yaml', cloud: '../cloud/openapi.yaml' }
const folder = new URL('src/generated/', import.meta.url)

mkdirSync(folder, { recursive: true })
for (const [name, path] of Object.entries(CONTRACTS)) {
  const text = `// Made from ${path} by types.mjs.\n${astToString(await openapi(new URL(path, import.meta.url)))}`
  const file = new URL(`${name}.ts`, folder)
  let before = ''
  try {
    before = readFileSync(file, 'utf8')
  } catch {
    // the first time
  }
  if (text !== before) writeFileSync(file, text)
}
