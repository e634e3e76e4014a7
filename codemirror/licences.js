// Print the licences of the packages that a bundle of esbuild holds, by its metafile.
import {readFileSync, readdirSync} from "node:fs"

const inputs = Object.keys(JSON.parse(readFileSync(process.argv[2], "utf8")).inputs)
const names = new Set(inputs.map(file => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]).filter(Boolean))
for (const name of [...names].sort()) {
  const folder = `node_modules/${name}`
  const {version, license} = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"))
  const file = readdirSync(folder).find(each => /^licen[cs]e/i.test(each))
  console.log(`${name} ${version} (${license})\n\n${file ? readFileSync(`${folder}/${file}`, "utf8").trim() : ""}\n`)
}
