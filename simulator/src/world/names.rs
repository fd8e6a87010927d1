//! Names, and other values from which the world is drawn.

/// The names of the first groups: one with a tenth of all users, an empty one, two that differ only
/// in case, one that is not Latin.
pub const FIRST_GROUPS: &[&str] = &[
    "All Hands",
    "Nobody Yet",
    "Finance",
    "finance",
    "Équipe Ñandú 東京",
    "With Outsiders",
];

/// A name as written, and its form in an address.
pub type Name = (&'static str, &'static str);

pub const FIRST_NAMES: &[Name] = &[
    ("Adam", "adam"),
    ("Aisha", "aisha"),
    ("Björn", "bjorn"),
    ("Carla", "carla"),
    ("Chloé", "chloe"),
    ("Daniel", "daniel"),
    ("Elif", "elif"),
    ("Eva", "eva"),
    ("Felix", "felix"),
    ("Grace", "grace"),
    ("Hiro", "hiro"),
    ("Ines", "ines"),
    ("Jack", "jack"),
    ("José", "jose"),
    ("Kofi", "kofi"),
    ("Lena", "lena"),
    ("Liam", "liam"),
    ("Łukasz", "lukasz"),
    ("Mei", "mei"),
    ("Mia", "mia"),
    ("Noah", "noah"),
    ("Olga", "olga"),
    ("Omar", "omar"),
    ("Priya", "priya"),
    ("Rafael", "rafael"),
    ("Ravi", "ravi"),
    ("Sara", "sara"),
    ("Sofía", "sofia"),
    ("Tom", "tom"),
    ("Yuki", "yuki"),
];

pub const LAST_NAMES: &[Name] = &[
    ("Andersson", "andersson"),
    ("Bauer", "bauer"),
    ("Brown", "brown"),
    ("Chen", "chen"),
    ("Costa", "costa"),
    ("Çelik", "celik"),
    ("Diaz", "diaz"),
    ("Dubois", "dubois"),
    ("Evans", "evans"),
    ("Fischer", "fischer"),
    ("García", "garcia"),
    ("Gupta", "gupta"),
    ("Hughes", "hughes"),
    ("Ito", "ito"),
    ("Jensen", "jensen"),
    ("Kaya", "kaya"),
    ("Khan", "khan"),
    ("Kowalski", "kowalski"),
    ("Lee", "lee"),
    ("Martin", "martin"),
    ("Mensah", "mensah"),
    ("Moreau", "moreau"),
    ("Nguyen", "nguyen"),
    ("O'Brien", "obrien"),
    ("Patel", "patel"),
    ("Rossi", "rossi"),
    ("Silva", "silva"),
    ("Smith", "smith"),
    ("Virtanen", "virtanen"),
    ("Weiß", "weiss"),
];

pub const TITLES: &[&str] = &[
    "Analyst",
    "Engineer",
    "Manager",
    "Director",
    "Designer",
    "Consultant",
    "Intern",
    "VP",
];
pub const DEPARTMENTS: &[&str] = &[
    "Finance",
    "Engineering",
    "Sales",
    "Marketing",
    "Legal",
    "People",
    "Support",
    "Operations",
];
pub const ROLES: &[&str] = &[
    "Project Manager",
    "Team Lead",
    "Executive",
    "IT Admin",
    "Individual Contributor",
];
pub const CITIES: &[&str] = &[
    "Berlin",
    "Lima",
    "Osaka",
    "Accra",
    "Malmö",
    "São Paulo",
    "Denver",
    "Pune",
];
pub const PLACES: &[(&str, &str)] = &[
    ("en_US", "US/Pacific"),
    ("en_US", "US/Eastern"),
    ("en_GB", "Europe/London"),
    ("de_DE", "Europe/Berlin"),
    ("pt_BR", "America/Sao_Paulo"),
    ("ja_JP", "Asia/Tokyo"),
];
