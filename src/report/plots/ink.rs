//! Colours by what they mean. A plot in a file has the light ones; in a page each becomes a variable of the style sheet, so
//! that one drawing serves both colour schemes.

use plotters::style::RGBColor;

/// Distinct colours of series; beyond them marks differ by shape.
pub const SERIES: usize = 8;
/// Steps of a heat scale, from worst to best.
pub const HEATS: usize = 9;

/// What something is drawn in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    Text,
    Dim,
    Grid,
    Background,
    /// The Pareto front.
    Front,
    Bad,
    /// A series by its number; wraps around.
    Series(usize),
    /// A step of the heat scale, 0 is worst.
    Heat(usize),
}

impl Ink {
    /// The light colour. No two inks have the same.
    pub fn rgb(self) -> RGBColor {
        let [r, g, b] = match self {
            Ink::Text => [0x1b, 0x1f, 0x24],
            Ink::Dim => [0x5b, 0x63, 0x6d],
            Ink::Grid => [0xe2, 0xe5, 0xe9],
            Ink::Background => [0xfe, 0xff, 0xff],
            Ink::Front => [0x8a, 0x94, 0xa1],
            Ink::Bad => [0xc4, 0x2b, 0x30],
            Ink::Series(i) => [
                [0x25, 0x63, 0xeb],
                [0xd9, 0x5f, 0x0e],
                [0x0f, 0x8a, 0x5f],
                [0x91, 0x33, 0xea],
                [0x08, 0x87, 0xa8],
                [0xc0, 0x26, 0x6f],
                [0x8a, 0x6a, 0x06],
                [0x4b, 0x55, 0x63],
            ][i % SERIES],
            Ink::Heat(step) => heat(step),
        };
        RGBColor(r, g, b)
    }

    /// Name of the variable in the page's style sheet.
    pub fn variable(self) -> String {
        match self {
            Ink::Text => "fg".into(),
            Ink::Dim => "dim".into(),
            Ink::Grid => "line".into(),
            Ink::Background => "panel".into(),
            Ink::Front => "front".into(),
            Ink::Bad => "bad".into(),
            Ink::Series(i) => format!("c{}", i % SERIES),
            Ink::Heat(step) => format!("h{}", step.min(HEATS - 1)),
        }
    }

    fn all() -> impl Iterator<Item = Ink> {
        let named = [Ink::Text, Ink::Dim, Ink::Grid, Ink::Background, Ink::Front, Ink::Bad];
        named.into_iter().chain((0..SERIES).map(Ink::Series)).chain((0..HEATS).map(Ink::Heat))
    }
}

/// From nearly white to a clear green on which dark text stays readable.
fn heat(step: usize) -> [u8; 3] {
    let (from, to) = ([0xf4u8, 0xf6, 0xf8], [0x5c, 0xc4, 0x95]);
    let part = step.min(HEATS - 1) as f64 / (HEATS - 1) as f64;
    std::array::from_fn(|i| (f64::from(from[i]) + (f64::from(to[i]) - f64::from(from[i])) * part).round() as u8)
}

/// A value between worst (0) and best (1) as a step of the heat scale.
pub fn heat_step(place: f64) -> Ink {
    Ink::Heat((place.clamp(0.0, 1.0) * (HEATS - 1) as f64).round() as usize)
}

/// A drawing with every colour replaced by its variable.
pub fn themed(svg: &str) -> String {
    let mut out = svg.to_string();
    for ink in Ink::all() {
        let RGBColor(r, g, b) = ink.rgb();
        out = out.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var(--{})\"", ink.variable()));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_inks_look_the_same_to_a_replacement() {
        let colours: BTreeSet<(u8, u8, u8)> = Ink::all().map(|i| (i.rgb().0, i.rgb().1, i.rgb().2)).collect();
        assert_eq!(colours.len(), Ink::all().count());
        assert_eq!(
            themed("<a fill=\"#2563EB\" stroke=\"none\">#2563EB</a>"),
            "<a fill=\"var(--c0)\" stroke=\"none\">#2563EB</a>"
        );
    }

    #[test]
    fn heat_has_its_ends() {
        assert_eq!((heat_step(-1.0), heat_step(1.0), heat_step(0.5)), (Ink::Heat(0), Ink::Heat(8), Ink::Heat(4)));
    }
}
