package app

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"crmsync/config"
	"crmsync/queue"
	"crmsync/worker"
)

// What a [TargetStatus] is made of, for those who show it.
type (
	// Limits are what an operator sets in place of a target's quota.
	Limits = worker.Limits
	// QuotaStatus is a quota at one instant.
	QuotaStatus = worker.QuotaStatus
	// WindowStatus is a window of a quota at one instant.
	WindowStatus = worker.WindowStatus
	// AdvertisedStatus is what the CRM said of a quota.
	AdvertisedStatus = worker.AdvertisedStatus
	// Slowed is what makes a rate in force less than the one allowed.
	Slowed = worker.Why
)

// What slows a rate.
const (
	SlowedByRefusals   = worker.WhyRefused
	SlowedByOutage     = worker.WhyOutage
	SlowedByAdvertised = worker.WhyAdvertised
)

// ParseRate reads a rate as the configuration has it, such as 4/s or 1000/h, in
// requests a second: up to 10,000/s.
func ParseRate(s string) (float64, error) {
	r, err := config.ParseRate(s)
	if err == nil && r > config.MaxRate {
		err = fmt.Errorf("%q is more than %d/s", s, config.MaxRate)
	}
	return r, err
}

// FormatRate writes a rate as the configuration has it.
func FormatRate(perSecond float64) string { return config.FormatRate(perSecond) }

// Limit sets limits in place of a target's configured quota, all that were set
// before being given up. They hold until l.Until, or for good where that is
// zero, through restarts and takeovers.
func (a *App) Limit(ctx context.Context, who Who, target string, l worker.Limits) (worker.Orders, error) {
	by, err := a.noteOrder(ctx, who, "rate", target, limitsDetail(l))
	if err != nil {
		return worker.Orders{}, err
	}
	l.By, l.Since = by, time.Now()
	return a.Steer(ctx, target, func(o *worker.Orders) { o.Limits = l })
}

// Unlimit returns a target to its configured quota.
func (a *App) Unlimit(ctx context.Context, who Who, target string) (worker.Orders, error) {
	if _, err := a.noteOrder(ctx, who, "rate", target, "as configured"); err != nil {
		return worker.Orders{}, err
	}
	return a.Steer(ctx, target, func(o *worker.Orders) { o.Limits = worker.Limits{} })
}

// sharedName is under which name orders for a shared quota are kept: no target
// has one like it.
func sharedName(group string) string { return "shared." + group }

// LimitShared is [App.Limit] for a shared quota. l has no Concurrency: that is
// each target's own.
func (a *App) LimitShared(ctx context.Context, who Who, group string, l worker.Limits) (worker.Orders, error) {
	by, err := a.noteShared(ctx, who, group, limitsDetail(l))
	if err != nil {
		return worker.Orders{}, err
	}
	l.By, l.Since = by, time.Now()
	return a.order(ctx, sharedName(group), func(o *worker.Orders) { o.Limits = l })
}

// UnlimitShared returns a shared quota to what is configured.
func (a *App) UnlimitShared(ctx context.Context, who Who, group string) (worker.Orders, error) {
	if _, err := a.noteShared(ctx, who, group, "as configured"); err != nil {
		return worker.Orders{}, err
	}
	return a.order(ctx, sharedName(group), func(o *worker.Orders) { o.Limits = worker.Limits{} })
}

// noteShared is noteOrder for a shared quota.
func (a *App) noteShared(ctx context.Context, who Who, group, detail string) (by string, err error) {
	if err := a.knownShared(group); err != nil {
		return "", err
	}
	actor := a.actor(who)
	return actor.By, a.q.Audit(ctx, queue.Entry{Actor: actor, Action: "rate", Detail: "shared quota " + group + ": " + detail})
}

// limitsDetail says limits in the audit trail.
func limitsDetail(l worker.Limits) string {
	b, _ := json.Marshal(l) // plain data
	return string(b)
}

func (a *App) knownShared(group string) error {
	if _, ok := a.cfg.Quotas[group]; !ok {
		return fmt.Errorf("there is no shared quota %q in the configuration; it has %s", group, list(sortedKeys(a.cfg.Quotas)))
	}
	return nil
}

// sharedLimits are the limits in force for a shared quota.
func (a *App) sharedLimits(group string) worker.Limits {
	a.mu.Lock()
	defer a.mu.Unlock()
	return inForce(a.orders[sharedName(group)], time.Now()).Limits
}

// inForce takes out of orders what has ended by itself.
func inForce(o worker.Orders, now time.Time) worker.Orders {
	if l := o.Limits; !l.Until.IsZero() && !l.Until.After(now) {
		o.Limits = worker.Limits{}
	}
	if o.Hold && !o.Until.IsZero() && !o.Until.After(now) {
		o.Hold = false
	}
	return o
}

// keepSteering gives a lane the orders in force: at once, and when limits among
// them run out. What changes in between comes from watchOrders.
func (a *App) keepSteering(ctx context.Context, name string, l *worker.Lane) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	a.steer(ctx, name, l)
	limits := a.ordersOf(name).Limits
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := a.ordersOf(name).Limits; now != limits {
			limits = now
			a.steer(ctx, name, l)
		}
	}
}

// ordersOf is what the operator last wanted of a target, less the limits that
// have run out. A configured rate of nothing is an order of its own.
func (a *App) ordersOf(name string) worker.Orders {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.orders[name]
	o.Limits = inForce(o, time.Now()).Limits
	if a.cfg.Targets[name].Quota.Rate == 0 && o.Limits.Rate == 0 {
		if !o.Hold {
			o = worker.Orders{Hold: true, By: "config", Note: "quota.rate is 0", Since: a.born, Limits: o.Limits}
		}
		o.Until = time.Time{} // no end of a hold may let loose what has no rate
	}
	return o
}
