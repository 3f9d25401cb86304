use std::collections::BTreeMap;

use serde::Deserialize;

use super::ImageError;

const BUILT_IN: [&str; 3] = [
    include_str!("../../image/base.toml"),
    include_str!("../../image/python.toml"),
    include_str!("../../image/code-review.toml"),
];

/// How an image is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The image's name.
    pub name: String,
    /// Tags that the image gets.
    pub tags: Vec<String>,
    /// The recipe that this one adds to.
    #[serde(default)]
    pub parent: Option<String>,
    /// Debian's packages.
    pub packages: Vec<String>,
    /// Where a Python virtual environment lies that belongs to the user.
    #[serde(default)]
    pub venv: Option<String>,
    /// What pip installs into that environment, each with its version.
    #[serde(default)]
    pub pip: Vec<String>,
    /// Commands that are run once in a template before it is frozen, so that what they load is warm in every machine.
    #[serde(default)]
    pub warm: Vec<Vec<String>>,
    /// Size of the disk that machines see, in MiB. The file is sparse.
    pub disk_mb: u64,
    /// Least memory that a machine of it needs, in MiB.
    pub min_memory_mb: u64,
    /// Environment of every process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl Recipe {
    /// The names of the built-in recipes.
    pub fn built_in_names() -> Vec<String> {
        BUILT_IN.iter().filter_map(|text| Self::parse(text).ok()).map(|recipe| recipe.name).collect()
    }

    /// A built-in recipe, its parents' packages and environment included.
    pub fn built_in(name: &str) -> Result<Self, ImageError> {
        let recipes: Vec<Self> = BUILT_IN.iter().map(|text| Self::parse(text)).collect::<Result<_, _>>()?;
        let find = |name: &str| recipes.iter().find(|recipe| recipe.name == name).cloned();
        let unknown = || {
            ImageError::Recipe(format!(
                "there is no recipe '{name}'; there are: {}",
                Self::built_in_names().join(", ")
            ))
        };
        let mut recipe = find(name).ok_or_else(unknown)?;
        let mut next = recipe.parent.clone();
        while let Some(parent) = next {
            let parent = find(&parent)
                .ok_or_else(|| ImageError::Recipe(format!("its parent '{parent}' is missing")))?;
            recipe.packages.extend(parent.packages);
            recipe.pip.extend(parent.pip);
            recipe.warm.extend(parent.warm);
            recipe.venv = recipe.venv.or(parent.venv);
            for (name, value) in parent.env {
                recipe.env.entry(name).or_insert(value);
            }
            next = parent.parent;
        }
        recipe.packages.sort();
        recipe.packages.dedup();
        Ok(recipe)
    }

    fn parse(text: &str) -> Result<Self, ImageError> {
        toml::from_str(text).map_err(|error| ImageError::Recipe(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::validate_image_name;
    use super::*;

    #[test]
    fn the_built_in_recipes_are_sound() {
        assert_eq!(Recipe::built_in_names(), ["base", "python", "code-review"]);
        for name in Recipe::built_in_names() {
            let recipe = Recipe::built_in(&name).unwrap();
            assert!(recipe.tags.iter().all(|tag| validate_image_name(tag).is_ok()));
            assert!(recipe.env.contains_key("PATH"));
        }
        let review = Recipe::built_in("code-review").unwrap();
        assert_eq!((review.venv.as_deref(), review.pip.len(), review.warm.len()), (Some("/opt/venv"), 2, 1));
        let python = Recipe::built_in("python").unwrap();
        assert!(python.packages.contains(&"curl".to_owned()), "its parent's packages");
        assert!(python.env["PATH"].starts_with("/opt/venv/bin:"), "its own environment wins");
        assert!(
            Recipe::built_in("ruby")
                .unwrap_err()
                .to_string()
                .contains("there are: base, python, code-review")
        );
    }
}
