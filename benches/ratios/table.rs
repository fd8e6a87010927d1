//! The table that is printed, and what is asked of its figures.

/// What a figure must come to.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }

    const fn words(self) -> (&'static str, f64) {
        match self {
            Self::AtLeast(bound) => ("≥", bound),
            Self::AtMost(bound) => ("≤", bound),
        }
    }
}

/// Prints as it is filled, and counts what was missed.
#[derive(Debug, Default)]
pub struct Table {
    judged: usize,
    missed: usize,
}

impl Table {
    /// Begins a part of the table.
    pub fn part(&mut self, title: &str) {
        println!("\n{title}\n");
    }

    /// A line of its own.
    pub fn line(&mut self, text: &str) {
        println!("  {text}");
    }

    /// A figure with its target, as a cell: `0.91 ≥ 0.85 ok`.
    pub fn judge(&mut self, figure: f64, target: Target) -> String {
        let (sign, bound) = target.words();
        self.judged += 1;
        let verdict = if target.is_met(figure) {
            "ok"
        } else {
            self.missed += 1;
            "MISS"
        };
        format!("{figure:.3} {sign} {bound} {verdict}")
    }

    /// A line for one figure: what it is, its target, and what it was made from.
    pub fn figure(&mut self, what: &str, figure: f64, target: Target, from: &str) {
        let judged = self.judge(figure, target);
        self.line(&format!("{what:<42} {judged:<20} {from}"));
    }

    /// Sums up; whether nothing was missed.
    pub fn conclude(&self) -> bool {
        let Self { judged, missed } = self;
        println!("\n{} of {judged} targets met.", judged - missed);
        *missed == 0
    }
}
