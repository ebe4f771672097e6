//! A plot of lines, as SVG.

use std::fmt::Write;

pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const RIGHT: f64 = 20.0;
const TICKS: u32 = 5;

/// A round number at or above `value`: 1, 2, or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 1.25, 1.5, 2.0, 2.5, 5.0, 10.0]
        .map(|n| n * power)
        .into_iter()
        .find(|&n| n >= value)
        .unwrap()
}

/// Both axes are linear and begin at zero, so that a straight line is proportional cost.
pub(crate) fn plot(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_max = round_up(points().map(|p| p.0).fold(0.0, f64::max));
    let y_max = round_up(points().map(|p| p.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    for tick in 0..=TICKS {
        let part = f64::from(tick) / f64::from(TICKS);
        let (tick_x, tick_y) = (x(part * x_max), y(part * y_max));
        writeln!(
            svg,
            "<path d=\"M{LEFT} {tick_y:.1}H{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{tick_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            tick_y + 4.0,
            part * y_max,
            HEIGHT - BOTTOM + 18.0,
            part * x_max,
        )
        .unwrap();
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let foot = HEIGHT - 12.0;
    writeln!(svg, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{x_name}</text>")
        .unwrap();
    writeln!(svg, "<text x=\"12\" y=\"{}\">{y_name}</text>", TOP - 4.0).unwrap();
    for (i, line) in (0_u32..).zip(lines) {
        let path: Vec<String> =
            line.points.iter().map(|&p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let legend = TOP + 16.0 + 18.0 * f64::from(i);
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n\
             <text x=\"{}\" y=\"{legend}\" fill=\"{}\">{}</text>",
            path.join(" "),
            line.colour,
            LEFT + 14.0,
            line.colour,
            line.name,
        )
        .unwrap();
    }
    svg + "</svg>\n"
}
