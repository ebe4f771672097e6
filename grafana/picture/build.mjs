// Bundles app.jsx, which lies beside a node_modules with Grafana's components, into app.js and app.css.
import esbuild from "esbuild";

const assets = { ".png": "dataurl", ".ttf": "dataurl", ".woff": "dataurl", ".woff2": "dataurl" };
await esbuild.build({
  entryPoints: ["app.jsx"],
  outfile: "app.js",
  bundle: true,
  format: "iife",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"', global: "window" },
  loader: { ".svg": "text", ...assets },
  logLevel: "error",
});
