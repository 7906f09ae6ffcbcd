//! The one place that knows the plotting library: marks in values of two axes go in, SVG comes out.
//!
//! Everything is drawn at twice its size in a page, because the library places things on whole pixels.

use std::fmt::Write;

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBAColor, ShapeStyle, TextStyle};

use super::axis::Axis;
use super::ink::{Ink, themed};
use crate::report::html::escape;

/// Width of every plot.
pub const WIDTH: u32 = 880;
/// Height of a line of the legend.
const LEGEND_LINE: u32 = 38;
const FONT: f64 = 25.0;
const TOP: u32 = 50;
const RIGHT: u32 = 44;
const BOTTOM: u32 = 84;
/// The library divides sizes of text by this.
const FONT_SCALE: f64 = 1.24;

/// A position in values of the two axes.
pub type At = (f64, f64);

/// Shape of a dot: series beyond the number of colours differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Disc,
    Ring,
    Square,
    Triangle,
}

/// Something drawn.
#[derive(Clone, Debug)]
pub enum Mark {
    Line {
        points: Vec<At>,
        ink: Ink,
        width: u32,
        opacity: f64,
    },
    Dot {
        at: At,
        ink: Ink,
        size: i32,
        shape: Shape,
        opacity: f64,
    },
    /// From one corner to the opposite one.
    Rect {
        from: At,
        to: At,
        ink: Ink,
        opacity: f64,
    },
    /// `size` is relative to the usual one.
    Text {
        at: At,
        text: String,
        ink: Ink,
        side: Side,
        size: f64,
        bold: bool,
    },
}

/// Which side of a text its position is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Middle,
}

/// A place that says something to who points at it, and leads to a unit.
#[derive(Clone, Debug)]
pub struct Hit {
    pub area: Area,
    pub text: String,
    /// Anchor in the page.
    pub anchor: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub enum Area {
    Dot(At),
    Rect(At, At),
}

/// A plot in the making.
pub struct Canvas {
    pub x: Axis,
    pub y: Axis,
    /// Of the part within the axes.
    pub height: u32,
    /// Room for the labels of the vertical axis.
    pub left: u32,
    pub marks: Vec<Mark>,
    pub legend: Vec<(Ink, Shape, String)>,
    pub hits: Vec<Hit>,
}

/// A finished drawing: what the library drew, and what is laid over it.
#[derive(Clone, Debug)]
pub struct Drawing {
    size: (u32, u32),
    body: String,
    /// Shape in SVG, text, anchor.
    hits: Vec<(String, String, Option<String>)>,
}

impl Canvas {
    pub fn new(x: Axis, y: Axis) -> Canvas {
        Canvas { x, y, height: 440, left: 100, marks: Vec::new(), legend: Vec::new(), hits: Vec::new() }
    }

    pub fn draw(&self) -> Drawing {
        let legend_height = LEGEND_LINE * self.legend.len() as u32;
        let size = (WIDTH, TOP + self.height + BOTTOM + legend_height);
        let mut svg = String::new();
        let mut hits = Vec::new();
        {
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            self.draw_on(&root, &mut hits).expect("drawing into a string succeeds");
            root.present().expect("drawing into a string succeeds");
        }
        // The body without the element around it, which is written anew with its descriptions.
        let begin = svg.find('>').map_or(0, |i| i + 1);
        let end = svg.rfind("</svg>").unwrap_or(svg.len());
        // What holds anyway takes a tenth of the bytes.
        let body = svg[begin..end].trim().replace(" opacity=\"1\"", "");
        Drawing { size, body, hits }
    }

    fn draw_on<'a>(&self, root: &Area2<'a>, hits: &mut Vec<(String, String, Option<String>)>) -> Drawn {
        let legend_height = LEGEND_LINE * self.legend.len() as u32;
        let mut chart = ChartBuilder::on(root)
            .margin_top(TOP)
            .margin_right(RIGHT)
            .margin_bottom(BOTTOM - 44 + legend_height)
            .x_label_area_size(44)
            .y_label_area_size(self.left)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        let labels = text_style(Ink::Dim, 1.0, false);
        chart
            .configure_mesh()
            .label_style(labels)
            .x_label_formatter(&|v| self.x.label(*v))
            .y_label_formatter(&|v| self.y.label(*v))
            .bold_line_style(style(Ink::Grid, 1.0, 2))
            .axis_style(style(Ink::Grid, 1.0, 2))
            .set_all_tick_mark_size(6)
            .draw()?;
        let at = |place: At| chart.backend_coord(&place);
        for mark in &self.marks {
            draw_mark(root, mark, &at)?;
        }
        for hit in &self.hits {
            hits.push((hit_shape(hit.area, &at), hit.text.clone(), hit.anchor.clone()));
        }
        let foot = (TOP + self.height + 62) as i32;
        let title = |text: &str, x: i32, y: i32, h| {
            root.draw_text(text, &text_style(Ink::Dim, 1.0, false).pos(Pos::new(h, VPos::Center)), (x, y))
        };
        title(&self.y.title, 4, 22, HPos::Left)?;
        title(&self.x.title, (WIDTH - RIGHT) as i32, foot, HPos::Right)?;
        for (i, (ink, shape, name)) in self.legend.iter().enumerate() {
            let y = foot + 40 + (i as u32 * LEGEND_LINE) as i32;
            let line = vec![(12, y), (52, y)];
            root.draw(&PathElement::new(line, style(*ink, 1.0, 4)))?;
            draw_dot(root, (32, y), *ink, 8, *shape, 1.0)?;
            root.draw_text(name, &text_style(Ink::Text, 1.0, false).pos(Pos::new(HPos::Left, VPos::Center)), (66, y))?;
        }
        Ok(())
    }
}

type Area2<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>>;

fn style(ink: Ink, opacity: f64, width: u32) -> ShapeStyle {
    let color: RGBAColor = ink.rgb().mix(opacity);
    ShapeStyle { color, filled: false, stroke_width: width }
}

fn text_style(ink: Ink, size: f64, bold: bool) -> TextStyle<'static> {
    let font = ("sans-serif", FONT * size * FONT_SCALE).into_font();
    let font = if bold { font.style(FontStyle::Bold) } else { font };
    TextStyle { color: ink.rgb().to_backend_color(), ..TextStyle::from(font) }
}

fn draw_mark(root: &Area2<'_>, mark: &Mark, at: &dyn Fn(At) -> (i32, i32)) -> Drawn {
    match mark {
        Mark::Line { points, ink, width, opacity } => {
            let points: Vec<(i32, i32)> = points.iter().map(|p| at(*p)).collect();
            root.draw(&PathElement::new(points, style(*ink, *opacity, *width)))
        }
        Mark::Dot { at: place, ink, size, shape, opacity } => draw_dot(root, at(*place), *ink, *size, *shape, *opacity),
        Mark::Rect { from, to, ink, opacity } => {
            let ((x0, y0), (x1, y1)) = (at(*from), at(*to));
            let corners = [(x0.min(x1), y0.min(y1)), (x0.max(x1), y0.max(y1))];
            root.draw(&Rectangle::new(corners, style(*ink, *opacity, 1).filled()))
        }
        Mark::Text { at: place, text, ink, side, size, bold } => {
            let h = match side {
                Side::Left => HPos::Left,
                Side::Middle => HPos::Center,
            };
            root.draw_text(text, &text_style(*ink, *size, *bold).pos(Pos::new(h, VPos::Center)), at(*place))
        }
    }
}

fn draw_dot(root: &Area2<'_>, (x, y): (i32, i32), ink: Ink, size: i32, shape: Shape, opacity: f64) -> Drawn {
    let fill = style(ink, opacity, 1).filled();
    match shape {
        Shape::Disc => root.draw(&Circle::new((x, y), size, fill)),
        Shape::Ring => {
            root.draw(&Circle::new((x, y), size, style(Ink::Background, 1.0, 1).filled()))?;
            root.draw(&Circle::new((x, y), size, style(ink, opacity, 4)))
        }
        Shape::Square => root.draw(&Rectangle::new([(x - size + 1, y - size + 1), (x + size - 1, y + size - 1)], fill)),
        Shape::Triangle => {
            let corners = vec![(x, y - size - 1), (x + size, y + size - 2), (x - size, y + size - 2)];
            root.draw(&Polygon::new(corners, fill))
        }
    }
}

/// The transparent shape that catches the pointer.
fn hit_shape(area: Area, at: &dyn Fn(At) -> (i32, i32)) -> String {
    match area {
        Area::Dot(place) => {
            let (x, y) = at(place);
            format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"18\"")
        }
        Area::Rect(from, to) => {
            let ((x0, y0), (x1, y1)) = (at(from), at(to));
            let (w, h) = ((x1 - x0).abs(), (y1 - y0).abs());
            format!("<rect x=\"{}\" y=\"{}\" width=\"{w}\" height=\"{h}\"", x0.min(x1), y0.min(y1))
        }
    }
}

impl Drawing {
    /// A file of its own: light, with a background, hover values as titles.
    pub fn file(&self, title: &str, alt: &str) -> String {
        let (w, h) = self.size;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">\n\
             <title>{}</title>\n<desc>{}</desc>\n<rect width=\"{w}\" height=\"{h}\" fill=\"#FEFFFF\"/>\n{}\n",
            escape(title),
            escape(alt),
            self.body
        );
        for (shape, text, _) in &self.hits {
            let _ = writeln!(out, "{shape} fill=\"transparent\"><title>{}</title></{}>", escape(text), element(shape));
        }
        out.push_str("</svg>\n");
        out
    }

    /// Part of a page: colours from its style sheet, hover texts for its script, links to units.
    pub fn inline(&self, alt: &str) -> String {
        let (w, h) = self.size;
        let mut out = format!(
            "<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{}\">\n{}\n",
            escape(alt),
            themed(&self.body)
        );
        for (shape, text, anchor) in &self.hits {
            let shape = format!("{shape} class=\"hit\"><title>{}</title></{}>", escape(text), element(shape));
            let _ = match anchor {
                // The tables lead to units by keyboard; hundreds of dots would stand in its way.
                Some(anchor) => writeln!(out, "<a href=\"#{anchor}\" tabindex=\"-1\">{shape}</a>"),
                None => writeln!(out, "{shape}"),
            };
        }
        out.push_str("</svg>\n");
        out
    }
}

fn element(shape: &str) -> &str {
    shape.trim_start_matches('<').split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing() -> Drawing {
        let values = [1.0, 64.0];
        let mut canvas =
            Canvas::new(Axis::loads("load", values.into_iter()), Axis::log("TTFT, ms", [40.0, 900.0].into_iter()));
        canvas.marks.push(Mark::Line {
            points: vec![(1.0, 40.0), (64.0, 900.0)],
            ink: Ink::Series(0),
            width: 4,
            opacity: 1.0,
        });
        for shape in [Shape::Disc, Shape::Ring, Shape::Square, Shape::Triangle] {
            canvas.marks.push(Mark::Dot { at: (1.0, 40.0), ink: Ink::Series(1), size: 8, shape, opacity: 1.0 });
        }
        let text = "a <b> & c".to_string();
        canvas.legend.push((Ink::Series(0), Shape::Disc, text.clone()));
        canvas.hits.push(Hit { area: Area::Dot((1.0, 40.0)), text, anchor: Some("u-1".into()) });
        canvas.draw()
    }

    #[test]
    fn a_file_stands_alone_and_a_page_takes_its_colours_from_the_style_sheet() {
        let drawing = drawing();
        let file = drawing.file("title", "what it shows");
        assert!(file.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"880\""), "{file}");
        assert!(file.contains("<desc>what it shows</desc>") && file.contains("#2563EB") && !file.contains("var("));
        assert!(file.contains("<title>a &lt;b&gt; &amp; c</title>") && file.trim_end().ends_with("</svg>"));
        let page = drawing.inline("what it shows");
        assert!(page.contains("var(--c0)") && !page.contains("#2563EB"), "{page}");
        assert!(page.contains("<a href=\"#u-1\"") && page.contains("aria-label=\"what it shows\""));
        for svg in [file, page] {
            assert_eq!(svg.matches("<svg").count(), 1);
            assert_eq!(svg.matches("</svg>").count(), 1);
        }
    }
}
