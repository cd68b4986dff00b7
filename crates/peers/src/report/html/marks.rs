//! What a contestant is drawn as: the same colour and shape on the whole page.

use crate::results::Report;

/// How many colours there are beside that of casblock.
pub const COLOURS: usize = 7;

/// How many shapes there are beside that of casblock. It shares no factor with [`COLOURS`]: 35 looks.
const SHAPES: usize = 5;

/// What a contestant is drawn as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// `var(--s…)`; 0 is casblock's.
    pub colour: usize,
    /// 0 is casblock's: a disc.
    pub shape: usize,
}

/// What each contestant is drawn as.
pub struct Looks<'r> {
    peers: Vec<&'r str>,
}

impl<'r> Looks<'r> {
    /// For all of a report: in the order of its contestants, then of its rows.
    pub fn of(report: &'r Report) -> Self {
        let contestants = report.contestants.iter().map(|contestant| contestant.name.as_str());
        let rows = report.sections.iter().flat_map(|section| &section.rows).map(|row| row.who.as_str());
        let mut peers: Vec<&str> = Vec::new();
        for name in contestants.chain(rows) {
            if name != "casblock" && !peers.contains(&name) {
                peers.push(name);
            }
        }
        Self { peers }
    }

    /// What `name` is drawn as.
    pub fn look(&self, name: &str) -> Look {
        match self.peers.iter().position(|peer| *peer == name) {
            Some(index) => Look { colour: 1 + index % COLOURS, shape: 1 + index % SHAPES },
            None => Look { colour: 0, shape: 0 },
        }
    }
}

impl Look {
    /// Its outline around (0, 0), about as large as a disc of `radius`; none for a disc.
    pub fn outline(self, radius: f64) -> Vec<(f64, f64)> {
        let (r, thin) = (radius, radius * 0.36);
        let scaled = |points: &[(f64, f64)]| points.iter().map(|(x, y)| (x * r, y * r)).collect();
        match self.shape {
            0 => Vec::new(),
            1 => scaled(&[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
            2 => scaled(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)]),
            3 => scaled(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
            4 => scaled(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)]),
            _ => {
                let (a, b) = (r * 1.15, thin);
                vec![
                    (-b, -a),
                    (b, -a),
                    (b, -b),
                    (a, -b),
                    (a, b),
                    (b, b),
                    (b, a),
                    (-b, a),
                    (-b, b),
                    (-a, b),
                    (-a, -b),
                    (-b, -b),
                ]
            }
        }
    }

    /// As SVG around (0, 0), with what a pointer at rest on it is told.
    pub fn svg(self, radius: f64, title: &str) -> String {
        let title = if title.is_empty() { String::new() } else { format!("<title>{title}</title>") };
        let class = self.colour;
        if self.shape == 0 {
            return format!("<circle class=\"c{class}\" r=\"{radius}\">{title}</circle>");
        }
        let points: Vec<String> = self.outline(radius).iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        format!("<polygon class=\"c{class}\" points=\"{}\">{title}</polygon>", points.join(" "))
    }

    /// For a legend.
    pub fn key(self) -> String {
        format!("<svg class=\"key\" viewBox=\"-8 -8 16 16\" aria-hidden=\"true\">{}</svg>", self.svg(5.5, ""))
    }
}
