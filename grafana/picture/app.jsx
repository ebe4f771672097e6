// Draws a dashboard with Grafana's own components, from answers that a test wrote down: fields,
// units, mappings, thresholds, overrides, transformations and links are interpreted by
// @grafana/data, and drawn by @grafana/ui.  What is ours is what Grafana's server and its data
// source do: the grid, the names of series, and tables out of Prometheus' answers.
//
// window.PICTURE: {dashboard, answers: {"panel id + query's letter": result}, from, to, variables}
import React from "react";
import { createRoot } from "react-dom/client";
import {
  applyFieldOverrides, cacheFieldDisplayNames, createTheme, dateTime, FieldConfigOptionsRegistry, FieldType,
  getFieldDisplayValues, LoadingState, standardFieldConfigEditorRegistry, standardTransformers,
  standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame,
} from "@grafana/data";
import { BigValue, GlobalStyles, PanelChrome, TimeSeries } from "@grafana/ui";
import { TableNG } from "@grafana/ui/unstable";
import { firstValueFrom } from "rxjs";
import "uplot/dist/uPlot.min.css";
import filterIcon from "./node_modules/@grafana/ui/dist/public/img/icons/unicons/filter.svg";
import infoIcon from "./node_modules/@grafana/ui/dist/public/img/icons/unicons/info-circle.svg";

const { dashboard, answers, from, to, variables } = window.PICTURE;
const theme = createTheme({ colors: { mode: "dark" } });
const WIDTH = 1400;
const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: "now-30m", to: "now" } };

// The components ask Grafana's server for their icons.
const icons = { "filter.svg": filterIcon, "info-circle.svg": infoIcon };
window.fetch = async (url) => {
  const icon = icons[String(url).split("/").pop()];
  return icon ? new Response(icon, { headers: { "Content-Type": "image/svg+xml" } })
    : new Response("", { status: 404 });
};

// What options a field has is known to the panels' plugins, which are not on npm.  Options are
// copied as they are, below `custom` too.
const leaves = (tree, path = []) =>
  Object.entries(tree ?? {}).map(([key]) => [...path, key].join("."));
function registryFor(fieldConfig) {
  const standard = leaves(fieldConfig.defaults).filter((id) => id !== "custom");
  const custom = leaves(fieldConfig.defaults.custom);
  const named = fieldConfig.overrides.flatMap((one) => one.properties.map(({ id }) => id));
  const ids = [...standard, ...custom.map((id) => `custom.${id}`), ...named];
  return new FieldConfigOptionsRegistry(() => [...new Set(ids)].map((id) => ({
    id,
    path: id.replace(/^custom\./, ""),
    name: id,
    isCustom: id.startsWith("custom."),
    process: (value) => value,
    shouldApply: () => true,
    override: () => null,
    editor: () => null,
  })));
}
standardFieldConfigEditorRegistry.setInit(() => []);
// Some of them have two names.
const transformers = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
standardTransformersRegistry.setInit(() => [...transformers.values()]
  .map((transformation) => ({ id: transformation.id, name: transformation.name, transformation })));

const interpolate = (text, scoped) => String(text).replace(
  /\$\{(\w+)(?:\.([^}:]+))?(?::(\w+))?\}|\$(\w+)/g,
  (whole, name, path, format, bare) => {
    const value = (scoped?.[name] ?? {}).value ?? variables[name ?? bare];
    if (value === undefined) return whole;
    const part = path ? path.split(".").reduce((at, key) => at?.[key], value) : value;
    return format === "percentencode" ? encodeURIComponent(part) : String(part ?? "");
  });

// The names of series and the columns of tables, as Grafana's data source for Prometheus makes them.
const seriesName = (legend, labels) =>
  legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? "");
function framesOf(panel, target) {
  const result = answers[`${panel.id}${target.refId}`];
  if (target.format === "table") {
    const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
    const name = panel.targets.length > 1 ? `Value #${target.refId}` : "Value";
    const column = (label) => ({
      name: label, type: FieldType.string, values: result.map(({ metric }) => metric[label] ?? ""),
    });
    return [toDataFrame({ refId: target.refId, fields: [
      { name: "Time", type: FieldType.time, values: result.map(({ value }) => value[0] * 1000) },
      ...labels.map(column),
      { name, type: FieldType.number, values: result.map(({ value }) => +value[1]) },
    ] })];
  }
  return result.map(({ metric, values, value }) => {
    const samples = values ?? [value];
    const name = seriesName(target.legendFormat, metric);
    return toDataFrame({ refId: target.refId, name, fields: [
      { name: "Time", type: FieldType.time, values: samples.map(([time]) => time * 1000) },
      { name: "Value", type: FieldType.number, values: samples.map(([, number]) => +number),
        labels: metric, config: { displayNameFromDS: name } },
    ] });
  });
}

async function load(panel) {
  const frames = panel.targets.flatMap((target) => framesOf(panel, target));
  const context = { interpolate: (text) => interpolate(text) };
  const shaped = await firstValueFrom(transformDataFrame(panel.transformations ?? [], frames, context));
  const drawn = applyFieldOverrides({
    data: shaped,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registryFor(panel.fieldConfig),
    replaceVariables: interpolate,
    theme,
    timeZone: "utc",
  });
  cacheFieldDisplayNames(drawn);
  return drawn;
}

const Empty = ({ panel }) => (
  <div style={{ color: theme.colors.text.secondary, textAlign: "center", paddingTop: 24 }}>
    {panel.fieldConfig.defaults.noValue ?? "No data"}
  </div>
);

function Body({ panel, data, width, height }) {
  const { options, fieldConfig } = panel;
  const rows = data.reduce((sum, frame) => sum + frame.length, 0);
  if (panel.type === "timeseries") {
    if (!rows) return <Empty panel={panel} />;
    return <TimeSeries frames={data} timeRange={timeRange} timeZone="utc" width={width}
      height={height} legend={options.legend} options={options}>{() => null}</TimeSeries>;
  }
  if (panel.type === "table") {
    if (!rows) return <Empty panel={panel} />;
    return <TableNG data={data[0]} width={width} height={height} cellHeight={options.cellHeight}
      fieldConfig={fieldConfig} timeRange={timeRange} getActions={() => []} enableVirtualization={false}
      initialSortBy={options.sortBy} />;
  }
  const { reduceOptions } = options;
  const values = getFieldDisplayValues({ fieldConfig, reduceOptions, replaceVariables: interpolate,
    theme, data, timeZone: "utc" });
  return <div style={{ display: "flex", gap: 8 }}>{values.map(({ display }, index) =>
    <BigValue key={index} theme={theme} value={display} width={width / values.length} height={height}
      colorMode={options.colorMode} graphMode={options.graphMode} justifyMode={options.justifyMode}
      textMode={options.textMode} />)}</div>;
}

// Grafana's grid has 24 columns, and rows of 30 pixels with 8 between.
const unit = (WIDTH - 16 + 8) / 24;
function Panel({ panel, data }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: "absolute", left: 8 + x * unit, top: 8 + y * 38, width: w * unit - 8,
    height: h * 38 - 8 };
  if (panel.type === "row") {
    return <h2 style={{ ...place, fontSize: 16, fontWeight: 500, paddingTop: 4 }}>⌄ {panel.title}</h2>;
  }
  return <section style={place} data-panel={panel.title}>
    <PanelChrome title={panel.title} description={panel.description} width={place.width}
      height={place.height} loadingState={LoadingState.Done}>
      {(width, height) => <Body panel={panel} data={data} width={width} height={height} />}
    </PanelChrome>
  </section>;
}

// What is cut: an element whose text is wider than it is, in a title or in a table.
window.cutTexts = () => {
  const cut = [];
  for (const panel of document.querySelectorAll("[data-panel]")) {
    for (const element of panel.querySelectorAll("h2, [role=columnheader], [role=gridcell], [role=columnheader] *")) {
      if (element.textContent && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0)
        cut.push(`${panel.dataset.panel}: ${element.textContent}`);
    }
  }
  return cut;
};

(async () => {
  const loaded = {};
  for (const panel of dashboard.panels.filter(({ targets }) => targets))
    loaded[panel.id] = await load(panel);
  document.head.appendChild(document.createElement("style")).textContent = `
    body { margin: 0; background: ${theme.colors.background.canvas};
      color: ${theme.colors.text.primary}; font-family: ${theme.typography.fontFamily}; }
    * { box-sizing: border-box } h2 { margin: 0 } html { scrollbar-width: none }
    /* Tables are drawn that nobody has scrolled to. */
    * { content-visibility: visible !important }`;
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  createRoot(document.body.appendChild(document.createElement("main"))).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: "relative", height: bottom * 38 + 16 }}>
        {dashboard.panels.map((panel) =>
          <Panel key={panel.id} panel={panel} data={loaded[panel.id]} />)}
      </div>
    </ThemeContext.Provider>);
  window.DRAWN = true;
})();
