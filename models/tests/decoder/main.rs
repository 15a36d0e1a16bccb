//! The decoder against a reference implementation, and against itself.

/// A test for each case of goldens, which calls a function with its name.
macro_rules! for_each_golden {
    ($check:ident) => {
        #[test]
        fn llama31_with_rope_scaling_and_far_positions() {
            $check("llama31");
        }

        #[test]
        fn llama31_with_a_tied_head() {
            $check("llama31_tied");
        }

        #[test]
        fn llama2() {
            $check("llama2");
        }

        #[test]
        fn glm4_as_chatglm_model() {
            $check("chatglm");
        }

        #[test]
        fn glm4_as_glm_for_causal_lm() {
            $check("glm");
        }

        #[test]
        fn glm4_as_glm4_for_causal_lm() {
            $check("glm4");
        }

        #[test]
        fn qwen2_with_yarn_and_far_positions() {
            $check("qwen2");
        }

        #[test]
        fn qwen3_with_norms_of_heads() {
            $check("qwen3");
        }
    };
}

mod equivalence;
mod goldens;
#[cfg(feature = "gpu")]
mod gpu;
mod harness;
