package ecs

import (
	"regexp"
	"slices"
	"strings"
)

// matcher says whether an instance meets a cluster query expression.
type matcher func(*instance) bool

var termPattern = regexp.MustCompile(`^\s*(!?)\s*([\w:.\-]+)\s*(==|!=|=~|!~|in|not_in|exists|!exists)\s*(.*?)\s*$`)

// parseExpression reads the part of ECS's cluster query language that people
// use: attribute:NAME (or ec2InstanceId, agentConnected, runningTasksCount == 0)
// with ==, !=, =~, in, not_in, exists, !exists; terms joined by "and" or "or",
// not both. Anything else is refused, as AWS refuses what it cannot read.
func parseExpression(text string) (matcher, error) {
	if strings.TrimSpace(text) == "" {
		return func(*instance) bool { return true }, nil
	}
	terms, all := splitTerms(text)
	var tests []matcher
	for _, term := range terms {
		test, err := parseTerm(term)
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return func(i *instance) bool {
		yes := func(m matcher) bool { return m(i) }
		if all {
			return !slices.ContainsFunc(tests, func(m matcher) bool { return !m(i) })
		}
		return slices.ContainsFunc(tests, yes)
	}, nil
}

var (
	andPattern = regexp.MustCompile(`\s+and\s+|\s*&&\s*`)
	orPattern  = regexp.MustCompile(`\s+or\s+|\s*\|\|\s*`)
)

func splitTerms(text string) (terms []string, all bool) {
	if orPattern.MatchString(text) {
		return orPattern.Split(text, -1), false
	}
	return andPattern.Split(text, -1), true
}

func parseTerm(term string) (matcher, error) {
	m := termPattern.FindStringSubmatch(term)
	if m == nil || m[1] != "" {
		return nil, invalid("Invalid expression: " + strings.TrimSpace(term))
	}
	subject, operator, operand := m[2], m[3], m[4]
	values := strings.FieldsFunc(strings.Trim(operand, "[]"), func(r rune) bool { return r == ',' || r == ' ' })
	pattern, err := operandPattern(operator, operand)
	if err != nil {
		return nil, invalid("Invalid expression: " + strings.TrimSpace(term))
	}
	return func(i *instance) bool {
		got, has := i.subject(subject)
		switch operator {
		case "exists":
			return has
		case "!exists":
			return !has
		case "!=", "not_in":
			return !slices.Contains(values, got)
		case "=~":
			return has && pattern.MatchString(got)
		case "!~":
			return !pattern.MatchString(got)
		}
		return has && slices.Contains(values, got)
	}, nil
}

// operandPattern is the pattern of =~ and !~; other operators have none.
func operandPattern(operator, operand string) (*regexp.Regexp, error) {
	if operator != "=~" && operator != "!~" {
		return nil, nil
	}
	return regexp.Compile("^(?:" + operand + ")$")
}

// subject is what an expression says about an instance.
func (i *instance) subject(name string) (string, bool) {
	if attribute, ok := strings.CutPrefix(name, "attribute:"); ok {
		return i.attribute(attribute)
	}
	switch name {
	case "ec2InstanceId":
		return i.ec2, true
	case "agentConnected":
		if i.connected {
			return "true", true
		}
		return "false", true
	}
	return "", false
}
