//! The printed table, and the targets for its figures.

/// The bound that a figure must meet.
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

/// Prints each line at once, and counts missed targets.
#[derive(Debug, Default)]
pub struct Table {
    judged: usize,
    missed: usize,
}

impl Table {
    /// Prints the title of a part.
    pub fn part(&mut self, title: &str) {
        println!("\n{title}\n");
    }

    /// Prints a line of text.
    pub fn line(&mut self, text: &str) {
        println!("  {text}");
    }

    /// Formats a figure with its target as a cell, such as `0.91 ≥ 0.85 ok`, and counts the result.
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

    /// Prints a line for one figure: its name, the figure with its target, and its source.
    pub fn figure(&mut self, what: &str, figure: f64, target: Target, from: &str) {
        let judged = self.judge(figure, target);
        self.line(&format!("{what:<42} {judged:<20} {from}"));
    }

    /// Prints the number of targets met. Returns whether all were met.
    pub fn conclude(&self) -> bool {
        let Self { judged, missed } = self;
        println!("\n{} of {judged} targets met.", judged - missed);
        *missed == 0
    }
}
