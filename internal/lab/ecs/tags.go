package ecs

import (
	"context"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TagResource sets tags of a cluster, an instance, a service, a task or a task
// definition. Tags that are not named stay.
func (p *Plane) TagResource(_ context.Context, in *sdk.TagResourceInput) (*sdk.TagResourceOutput, error) {
	if err := checkTags(append([]types.Tag{}, in.Tags...), "Tags can not be empty."); err != nil {
		return nil, err
	}
	return answer(&sdk.TagResourceOutput{}, p.changeTags(str(in.ResourceArn), func(tags []types.Tag) ([]types.Tag, error) {
		tags = setTags(tags, in.Tags)
		if len(tags) > 50 {
			return nil, invalid("Too many tags: 50 are allowed per resource.")
		}
		return tags, nil
	}))
}

// UntagResource removes tags by their keys; keys that are not there do not matter.
func (p *Plane) UntagResource(_ context.Context, in *sdk.UntagResourceInput) (*sdk.UntagResourceOutput, error) {
	if len(in.TagKeys) == 0 {
		return nil, invalid("Tag keys can not be empty.")
	}
	if slices.ContainsFunc(in.TagKeys, isAWS) {
		return nil, invalid("The aws: prefix is reserved for AWS use.")
	}
	return answer(&sdk.UntagResourceOutput{}, p.changeTags(str(in.ResourceArn), func(tags []types.Tag) ([]types.Tag, error) {
		return slices.DeleteFunc(slices.Clone(tags), func(t types.Tag) bool { return slices.Contains(in.TagKeys, str(t.Key)) }), nil
	}))
}

// ListTagsForResource lists the tags of one resource.
func (p *Plane) ListTagsForResource(ctx context.Context, in *sdk.ListTagsForResourceInput) (*sdk.ListTagsForResourceOutput, error) {
	out := &sdk.ListTagsForResourceOutput{}
	err := p.read(ctx, func(st *state) error {
		tags, err := st.tagsOf(str(in.ResourceArn))
		if err != nil {
			return err
		}
		out.Tags = slices.Clone(orEmpty(*tags))
		return nil
	})
	return answer(out, err)
}

func (p *Plane) changeTags(arn string, change func([]types.Tag) ([]types.Tag, error)) error {
	err := errClosed
	p.mutate(func() {
		var tags *[]types.Tag
		if tags, err = p.state.tagsOf(arn); err != nil {
			return
		}
		var changed []types.Tag
		if changed, err = change(*tags); err == nil {
			*tags = changed
		}
	})
	return err
}

func setTags(tags, set []types.Tag) []types.Tag {
	out := slices.Clone(tags)
	for _, t := range set {
		i := slices.IndexFunc(out, func(o types.Tag) bool { return str(o.Key) == str(t.Key) })
		if i < 0 {
			out = append(out, t)
		} else {
			out[i] = t
		}
	}
	return out
}

// tagsOf finds the tags of the resource with that ARN.
func (st *state) tagsOf(arn string) (*[]types.Tag, error) {
	_, resource, ok := strings.Cut(arn, ":ecs:")
	parts := strings.SplitN(resource, ":", 3)
	if !ok || len(parts) != 3 {
		return nil, invalid("The ARN is not valid: " + arn)
	}
	kind, _, _ := strings.Cut(parts[2], "/")
	tags := st.tagsOfKind(kind, arn)
	if tags == nil {
		return nil, invalid("The specified " + kind + " is inactive or does not exist. Specify an active " + kind + " and try again.")
	}
	return tags, nil
}

func (st *state) tagsOfKind(kind, arn string) *[]types.Tag {
	if kind == "task-definition" {
		if d := st.definition(arn); d != nil {
			return &d.tags
		}
		return nil
	}
	if kind == "cluster" {
		if c := st.cluster(arn); c != nil {
			return &c.tags
		}
		return nil
	}
	for _, c := range st.clusters {
		if tags := c.tagsOf(kind, arn); tags != nil {
			return tags
		}
	}
	return nil
}

func (c *cluster) tagsOf(kind, arn string) *[]types.Tag {
	switch kind {
	case "service":
		if s := c.service(arn); s != nil && s.status != "INACTIVE" {
			return &s.tags
		}
	case "task":
		if t := c.task(arn); t != nil {
			return &t.tags
		}
	case "container-instance":
		if i := c.instance(arn); i != nil && i.arn == arn {
			return &i.tags
		}
	}
	return nil
}
