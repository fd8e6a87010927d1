//! Fixed people of every world: the owners of the tokens, and one person for each special case that
//! has caused errors in clients.

use super::people::{Seat, Status};

/// A variation that the fields of a [`Part`] do not express.
#[derive(Clone, Copy, Debug)]
pub enum Twist {
    None,
    AlternateEmails,
    ProvisionalEnd,
    NeverLoggedIn,
    EmptyProfile,
}

/// A fixed person. An empty name means none.
pub struct Part {
    pub first: &'static str,
    pub last: &'static str,
    pub email: &'static str,
    pub status: Status,
    pub seat: Seat,
    pub admin: bool,
    pub group_admin: bool,
    pub twist: Twist,
}

const fn part(
    first: &'static str,
    last: &'static str,
    email: &'static str,
    status: Status,
    seat: Seat,
) -> Part {
    Part {
        first,
        last,
        email,
        status,
        seat,
        admin: false,
        group_admin: false,
        twist: Twist::None,
    }
}

impl Part {
    const fn admin(self) -> Part {
        Part {
            admin: true,
            ..self
        }
    }

    const fn group_admin(self) -> Part {
        Part {
            group_admin: true,
            ..self
        }
    }

    const fn with(self, twist: Twist) -> Part {
        Part { twist, ..self }
    }
}

pub const PARTS: &[Part] = &[
    // The owners of the tokens: see `Cast`.
    part(
        "Ana",
        "Ruiz",
        "ana.ruiz@example.org",
        Status::Active,
        Seat::Member,
    )
    .admin()
    .group_admin(),
    part(
        "Bela",
        "Kovács",
        "bela.kovacs@example.org",
        Status::Active,
        Seat::Member,
    )
    .group_admin(),
    part(
        "Chidi",
        "Okafor",
        "chidi.okafor@example.org",
        Status::Active,
        Seat::Member,
    ),
    part(
        "Dana",
        "Levi",
        "dana.levi@example.org",
        Status::Active,
        Seat::Member,
    ),
    part(
        "Emil",
        "Berg",
        "emil.berg@example.org",
        Status::Active,
        Seat::Member,
    ),
    // Another system admin, whom no caller may impersonate.
    part(
        "Farah",
        "Haddad",
        "farah.haddad@example.org",
        Status::Active,
        Seat::Member,
    )
    .admin()
    .group_admin(),
    part(
        "Iris",
        "Tanaka",
        "iris.tanaka@example.org",
        Status::Active,
        Seat::Member,
    )
    .with(Twist::AlternateEmails),
    part("", "", "no.name@example.org", Status::Active, Seat::Viewer).with(Twist::NeverLoggedIn),
    part(
        "",
        "",
        "invited@example.org",
        Status::Pending,
        Seat::Contributor,
    )
    .with(Twist::EmptyProfile),
    part(
        "Gus",
        "Declan",
        "gus.declan@example.org",
        Status::Declined,
        Seat::Contributor,
    )
    .with(Twist::EmptyProfile),
    part(
        "Hana",
        "Nováková",
        "hana.novakova@example.org",
        Status::Deactivated,
        Seat::Member,
    ),
    part(
        "Ivo",
        "Petrov",
        "ivo.petrov@example.org",
        Status::Active,
        Seat::ProvisionalMember,
    )
    .with(Twist::ProvisionalEnd),
    part(
        "Jana",
        "Ilves",
        "jana.ilves@example.org",
        Status::Active,
        Seat::ProvisionalMember,
    ),
    part(
        "Kim",
        "Gast",
        "kim.gast@partner.example",
        Status::Active,
        Seat::Guest,
    ),
    part(
        "Lou",
        "Gast",
        "lou.gast@example.net",
        Status::Pending,
        Seat::Guest,
    )
    .with(Twist::NeverLoggedIn),
    part(
        "山田",
        "太郎 🦊",
        "yamada.taro@example.org",
        Status::Active,
        Seat::Contributor,
    ),
    part(
        "Maria",
        "Lopez",
        "maria.lopez@example.org",
        Status::Active,
        Seat::Member,
    ),
    part(
        "MARIA",
        "LOPEZ",
        "maria.lopez.2@example.org",
        Status::Active,
        Seat::Viewer,
    ),
    part(
        "O'Neil \"Ned\"",
        "<Smith> & Søn",
        "ned.smith@example.org",
        Status::Active,
        Seat::Viewer,
    ),
    part(
        "Zoë",
        "",
        "zoe@example.org",
        Status::Active,
        Seat::Contributor,
    ),
];
