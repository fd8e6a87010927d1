//! The rate limit of each token.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::switches::Window;

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// The requests that a token made in its current window.
#[derive(Clone, Debug, Default)]
struct Spent {
    /// Time and cost of each request; a fixed window has one entry, at its start.
    requests: VecDeque<(Timestamp, u32)>,
    total: u32,
}

/// The cost of a request, and the limit that applies.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    pub cost: u32,
    pub limit: u32,
    pub window: Window,
}

/// A token's quota after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub is_over: bool,
    pub left: u32,
    /// Seconds until quota becomes free again.
    pub resets_in_s: i64,
}

/// The used quota of all tokens. A refused request costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Limits(HashMap<String, Spent>);

impl Limits {
    pub fn spend(&mut self, token: &str, price: Price, now: Timestamp) -> Standing {
        let Price {
            cost,
            limit,
            window,
        } = price;
        let spent = self.0.entry(token.to_owned()).or_default();
        while let Some(&(at, cost)) = spent.requests.front()
            && now.duration_since(at) >= MINUTE
        {
            spent.requests.pop_front();
            spent.total -= cost;
        }
        let is_over = spent.total.saturating_add(cost) > limit;
        if !is_over {
            spent.total += cost;
            match (window, spent.requests.front_mut()) {
                (Window::Fixed, Some((_, total))) => *total += cost,
                _ => spent.requests.push_back((now, cost)),
            }
        }
        let opened = spent.requests.front().map_or(now, |(at, _)| *at);
        let left_of_window = MINUTE - now.duration_since(opened);
        Standing {
            is_over,
            left: limit.saturating_sub(spent.total),
            resets_in_s: left_of_window.as_secs().max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_fixed_window_frees_all_at_once_and_a_sliding_one_by_and_by() {
        for (window, passed) in [(Window::Fixed, 2), (Window::Sliding, 1)] {
            let mut limits = Limits::default();
            let mut ask = |second| {
                !limits
                    .spend(
                        "t",
                        Price {
                            cost: 1,
                            limit: 2,
                            window,
                        },
                        at(second),
                    )
                    .is_over
            };
            assert!(ask(0) && ask(50) && !ask(59));
            assert_eq!(
                [60, 61].into_iter().filter(|second| ask(*second)).count(),
                passed,
                "{window:?}"
            );
        }
    }

    #[test]
    fn each_token_has_a_budget_of_its_own() {
        let mut limits = Limits::default();
        let price = Price {
            cost: 1,
            limit: 1,
            window: Window::Fixed,
        };
        assert!(!limits.spend("a", price, at(0)).is_over);
        assert!(limits.spend("a", price, at(0)).is_over);
        assert!(!limits.spend("b", price, at(0)).is_over);
    }
}
