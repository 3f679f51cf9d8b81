// Runs the public test-suite for HTTP caches against a gateway, and says what came of each test:
// node run.mjs SUITE URL
import { pathToFileURL } from 'url'
import { join } from 'path'

const [suite, base] = process.argv.slice(2)
const load = path => import(pathToFileURL(join(suite, path)))

const { default: tests } = await load('tests/index.mjs')
const { runTests, getResults } = await load('client/runner.mjs')
const { determineTestResult } = await load('lib/display.mjs')
const { default: fetch } = await load('../node-fetch/lib/index.mjs')

await runTests(tests, fetch, false, base)
const results = getResults()
const said = {}
for (const group of tests) {
  for (const test of group.tests) {
    if (test.browser_only) continue
    const symbol = determineTestResult(tests, test.id, results)[2]
    const why = results[test.id] === true ? '' : (results[test.id] || []).join(': ')
    said[test.id] = { kind: test.kind || 'required', passed: symbol === '✅' || symbol === 'Y', why }
  }
}
console.log(JSON.stringify(said))
