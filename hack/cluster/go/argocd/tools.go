//go:build tools

// Package tools pins the programs that are built from this module.
package tools

import (
	_ "github.com/argoproj/argo-cd/v3/cmd"
)
