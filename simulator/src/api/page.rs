//! Paging by page number, as the lists of users and groups use it.

use serde::Serialize;

use crate::call::{Call, Reply};
use crate::faults::Fault;
use crate::refusal::{self, Refusal};
use crate::switches::{OverCap, PastEnd, Switches, Totals};

const DEFAULT_SIZE: u64 = 100;

/// The requested page.
#[derive(Clone, Copy, Debug)]
enum Asked {
    All,
    Page { number: u64, size: u64 },
}

impl Asked {
    fn of(call: &Call, switches: &Switches) -> Result<Self, Refusal> {
        if call.query.flag("includeAll")?.unwrap_or(false) {
            return Ok(Asked::All);
        }
        let number = call.query.count("page")?.unwrap_or(1);
        let mut size = call.query.count("pageSize")?.unwrap_or(DEFAULT_SIZE);
        if let Some(cap) = switches.page_size_cap
            && size > cap
        {
            size = match switches.page_size_over_cap {
                OverCap::Clamp => cap,
                OverCap::Refuse1018 => {
                    return Err(crate::call::bad_parameter("pageSize", &size.to_string()));
                }
                OverCap::Refuse1229 => {
                    return Err(
                        refusal::OUT_OF_RANGE.because(format!("pageSize is at most {cap}."))
                    );
                }
            };
        }
        Ok(Asked::Page { number, size })
    }
}

/// A page of a list: its rows and totals.
pub struct Page<T> {
    pub rows: Vec<T>,
    number: u64,
    /// None for a reply with all rows.
    size: Option<u64>,
    pages: u64,
    total: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<R> {
    page_number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_size: Option<u64>,
    total_pages: i64,
    total_count: i64,
    data: Vec<R>,
}

impl<T: Copy> Page<T> {
    /// Cuts the requested page out of a list and applies the faults for lists.
    pub fn cut(
        all: &[T],
        call: &Call,
        switches: &Switches,
        fault: Option<&Fault>,
    ) -> Result<Self, Refusal> {
        let asked = Asked::of(call, switches)?;
        let all = match fault {
            Some(Fault::EmptyPage) => &[],
            Some(Fault::CapRows { rows }) => &all[..all.len().min(*rows)],
            _ => all,
        };
        let total = all.len() as u64;
        let mut page = match asked {
            Asked::All => Page {
                rows: all.to_vec(),
                number: 1,
                size: None,
                pages: total.min(1),
                total,
            },
            Asked::Page { number, size } => {
                let pages = total.div_ceil(size);
                let number = match switches.page_past_end {
                    PastEnd::RepeatLast => number.min(pages.max(1)),
                    PastEnd::Empty => number,
                };
                // The repeated page keeps its own number and has the rows of the page before.
                let of_rows = if fault == Some(&Fault::RepeatPage) {
                    number.saturating_sub(1).max(1)
                } else {
                    number
                };
                let first = of_rows.saturating_sub(1).saturating_mul(size).min(total);
                let end = first.saturating_add(size).min(total);
                let place = |row: u64| usize::try_from(row).expect("a row within a slice");
                Page {
                    rows: all[place(first)..place(end)].to_vec(),
                    number,
                    size: Some(size),
                    pages,
                    total,
                }
            }
        };
        if let Some(Fault::DuplicateRows { ratio }) = fault {
            // The ratio is at most 1, so this is at most the number of rows.
            let again = (page.rows.len() as f64 * ratio).ceil() as usize;
            page.rows.extend_from_within(..again);
        }
        Ok(page)
    }

    /// The reply for the page; `row` maps each row.
    pub fn reply<R: Serialize>(self, switches: &Switches, row: impl FnMut(T) -> R) -> Reply {
        let told = |count: u64| match switches.totals {
            Totals::Counted => i64::try_from(count).unwrap_or(i64::MAX),
            Totals::Unknown => -1,
        };
        Reply::json(
            200,
            &Envelope {
                page_number: self.number,
                page_size: self.size,
                total_pages: told(self.pages),
                total_count: told(self.total),
                data: self.rows.into_iter().map(row).collect(),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Query;

    fn cut(
        len: u32,
        query: &[(&str, &str)],
        fault: Option<Fault>,
        turn: impl FnOnce(&mut Switches),
    ) -> Page<u32> {
        let pairs: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = Query::parse(pairs.join("&").as_bytes());
        let call = Call {
            query,
            ..Call::default()
        };
        let mut switches = Switches::new(0);
        turn(&mut switches);
        Page::cut(
            &(0..len).collect::<Vec<_>>(),
            &call,
            &switches,
            fault.as_ref(),
        )
        .unwrap()
    }

    #[test]
    fn a_page_past_the_end_repeats_the_last_or_is_empty() {
        let asked = [("page", "9"), ("pageSize", "10")];
        let page = cut(25, &asked, None, |_| ());
        assert_eq!(
            (page.number, page.pages, page.rows),
            (3, 3, vec![20, 21, 22, 23, 24])
        );
        let page = cut(25, &asked, None, |switches| {
            switches.page_past_end = PastEnd::Empty
        });
        assert_eq!((page.number, page.pages, page.rows), (9, 3, vec![]));
    }

    #[test]
    fn all_pages_together_are_the_list() {
        for size in 1..30 {
            let size_text = size.to_string();
            let mut rows = Vec::new();
            for number in 1..=25_u32.div_ceil(size) {
                rows.extend(
                    cut(
                        25,
                        &[("page", &number.to_string()), ("pageSize", &size_text)],
                        None,
                        |_| (),
                    )
                    .rows,
                );
            }
            assert_eq!(rows, (0..25).collect::<Vec<_>>());
        }
    }

    #[test]
    fn list_faults_say_what_they_are_made_to() {
        let asked = [("page", "2"), ("pageSize", "10")];
        assert_eq!(
            cut(25, &asked, Some(Fault::RepeatPage), |_| ()).rows,
            (0..10).collect::<Vec<_>>()
        );
        let capped = cut(25, &asked, Some(Fault::CapRows { rows: 12 }), |_| ());
        assert_eq!((capped.total, capped.rows), (12, vec![10, 11]));
        let doubled = cut(
            25,
            &asked,
            Some(Fault::DuplicateRows { ratio: 0.1 }),
            |_| (),
        );
        assert_eq!(
            (doubled.total, doubled.rows.len(), doubled.rows[10]),
            (25, 11, 10)
        );
        let empty = cut(25, &asked, Some(Fault::EmptyPage), |_| ());
        assert_eq!((empty.total, empty.pages, empty.rows.len()), (0, 0, 0));
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let far = u64::MAX.to_string();
        let page = cut(
            25,
            &[("page", &far), ("pageSize", &far)],
            None,
            |switches| switches.page_size_cap = None,
        );
        assert_eq!(page.rows.len(), 25);
    }
}
