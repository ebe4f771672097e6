// Validates a dashboard against the models that Grafana publishes: the dashboard, and each part
// that a plugin owns (a panel's options, a field's options, a query) against that plugin's own.
import fs from "node:fs";
import path from "node:path";
import Ajv from "ajv";
import { createGenerator } from "ts-json-schema-generator";

const [file, modules] = process.argv.slice(2);
const models = path.join(modules, "@grafana/grafana-foundation-sdk/dist");
const compiled = new Map();

function model(owner, type) {
  const key = `${owner}.${type}`;
  if (!compiled.has(key)) {
    const source = { path: path.join(models, owner, "types.gen.d.ts"), type, skipTypeCheck: true };
    const schema = createGenerator(source).createSchema(type);
    compiled.set(key, new Ajv({ strict: false, allErrors: true }).compile(schema));
  }
  return compiled.get(key);
}

let parts = 0;
let faults = 0;
function check(what, owner, type, value) {
  parts += 1;
  const valid = model(owner, type);
  if (valid(value)) return;
  faults += 1;
  for (const error of valid.errors.filter((one) => one.keyword !== "anyOf")) {
    const detail = JSON.stringify(error.params);
    console.error(`${file}: ${what}: ${error.instancePath} ${error.message} ${detail}`);
  }
}

const dashboard = JSON.parse(fs.readFileSync(file, "utf8"));
// The dashboard's model leaves open what plugins own.
const bare = structuredClone(dashboard);
for (const panel of bare.panels.filter((one) => one.type !== "row")) {
  Object.assign(panel, { targets: [], options: {} });
  delete panel.fieldConfig.defaults.custom;
}
check("dashboard", "dashboard", "Dashboard", bare);
for (const panel of dashboard.panels.filter((one) => one.type !== "row")) {
  const { title, type, options, targets } = panel;
  check(`panel ${title}`, "dashboard", "Panel", bare.panels.find((one) => one.id === panel.id));
  check(`options of ${title}`, type, "Options", options);
  const custom = panel.fieldConfig.defaults.custom;
  if (custom) check(`fields of ${title}`, type, "FieldConfig", custom);
  for (const target of targets) check(`query of ${title}`, "prometheus", "Dataquery", target);
}
for (const variable of dashboard.templating.list)
  check(`variable ${variable.name}`, "dashboard", "VariableModel", variable);

console.log(`grafana: ${parts} parts of ${file} checked against Grafana's models, ${faults} faulty`);
process.exitCode = faults ? 1 : 0;
