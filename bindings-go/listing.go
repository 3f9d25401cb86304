//go:build cgo

package forkyard

import (
	"context"
	"iter"
)

// SandboxFilter says which machines to list: those that fit all that is said. The zero value is all of the project's, ended ones
// included.
type SandboxFilter struct {
	// Name is the name that they must have; at most one that has not ended has it.
	Name string
	// Status is where they must stand. Default: anywhere.
	Status SandboxStatus
	// Image is what they must be of: a tag as it was asked for, or a digest.
	Image string
	// Labels are what they must have, all of them.
	Labels map[string]string
	// PageSize is how many machines one request fetches, 1 to 1,000. Default: 100 for Sandboxes, 1,000 for List.
	PageSize int
}

// List answers the machines that fit, newest first. It fails with [CodeInvalidArgument] where no label can be as asked.
func (o *Client) List(ctx context.Context, filter SandboxFilter) ([]SandboxInfo, error) {
	if filter.PageSize == 0 {
		filter.PageSize = 1000
	}
	var all []SandboxInfo
	for info, err := range o.Sandboxes(ctx, filter) {
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

// Sandboxes are the same machines, fetched as they are read, a page at a time. One that is made meanwhile is not among them, and
// none comes twice. An error is the last that comes.
func (o *Client) Sandboxes(ctx context.Context, filter SandboxFilter) iter.Seq2[SandboxInfo, error] {
	return func(yield func(SandboxInfo, error) bool) {
		listing, err := o.listing(listFilter{
			Name:     filter.Name,
			Status:   string(filter.Status),
			Image:    filter.Image,
			Labels:   filter.Labels,
			PageSize: filter.PageSize,
		})
		if err != nil {
			yield(SandboxInfo{}, err)
			return
		}
		defer listing.close()
		for {
			page, err := listing.nextPage(ctx)
			if err != nil {
				yield(SandboxInfo{}, err)
				return
			}
			if page == nil {
				return
			}
			for _, info := range page.Sandboxes {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}
